//! Questions that are open, and members that took too long.

use super::wire::{MAX_ANSWER_BYTES, Rubbish};
use maelstrom_gossip::NodeId;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long a member that did not answer in time is not asked. Each time it is twice as long, until
/// it answers.
const SLOW_FOR: Duration = Duration::from_secs(2);
const SLOW_AT_MOST: Duration = Duration::from_secs(64);

/// An answer, and who gave it.
pub(super) type Answer = Option<(NodeId, Vec<u8>)>;

/// Questions that are open, and members that took too long.
pub(super) struct Questions {
    next: u64,
    open: HashMap<u64, Open>,
    /// Until when members are not asked, and how long that is altogether.
    slow: HashMap<NodeId, (Instant, Duration)>,
}

struct Open {
    /// Those who have not answered to the end, and how many bytes each may still send.
    asked: HashMap<NodeId, usize>,
    answers: Vec<Answer>,
    missing: usize,
}

impl Questions {
    pub(super) fn new(first: u64) -> Self {
        Self {
            next: first,
            open: HashMap::new(),
            slow: HashMap::new(),
        }
    }

    /// Whether a member did not answer in time a short while ago.
    pub(super) fn is_slow(&self, now: Instant, member: NodeId) -> bool {
        self.slow
            .get(&member)
            .is_some_and(|(until, _)| now < *until)
    }

    /// Opens a question for so many results. Returns its number.
    pub(super) fn ask(&mut self, members: &[NodeId], keys: usize) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let open = Open {
            asked: members
                .iter()
                .map(|member| (*member, MAX_ANSWER_BYTES))
                .collect(),
            answers: vec![None; keys],
            missing: keys,
        };
        self.open.insert(number, open);
        number
    }

    /// A peer answers. The first result for a key counts. Answers to nothing that is open, or of
    /// others than those who were asked, are too late or none, and are left alone.
    pub(super) fn answer(
        &mut self,
        from: NodeId,
        number: u64,
        results: Vec<(u32, Vec<u8>)>,
        last: bool,
    ) -> Result<(), Rubbish> {
        let Some(open) = self.open.get_mut(&number) else {
            return Ok(());
        };
        let Some(left) = open.asked.get_mut(&from) else {
            return Ok(());
        };
        for (place, result) in results {
            let answer = open.answers.get_mut(place as usize).ok_or(Rubbish::Place)?;
            *left = left.checked_sub(result.len()).ok_or(Rubbish::Place)?;
            if answer.is_none() {
                *answer = Some((from, result));
                open.missing -= 1;
            }
        }
        if last {
            open.asked.remove(&from);
            self.slow.remove(&from);
        }
        Ok(())
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_done(&self, number: u64) -> bool {
        let open = self.open.get(&number);
        open.is_none_or(|open| open.missing == 0 || open.asked.is_empty())
    }

    /// What came. Those who did not answer to the end, if anything is missing, are slow.
    pub(super) fn close(&mut self, now: Instant, number: u64) -> Vec<Answer> {
        let Some(open) = self.open.remove(&number) else {
            return Vec::new();
        };
        if open.missing > 0 {
            self.slow
                .retain(|_, (until, _)| now < *until + SLOW_AT_MOST);
            for member in open.asked.keys() {
                let before = self.slow.get(member).map(|(_, pause)| *pause * 2);
                let pause = before.unwrap_or(SLOW_FOR).min(SLOW_AT_MOST);
                self.slow.insert(*member, (now + pause, pause));
            }
        }
        open.answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn answers_come_to_their_places_and_the_first_counts() {
        let mut questions = Questions::new(u64::MAX);
        let now = Instant::now();
        let number = questions.ask(&[node(1), node(2)], 3);
        assert!(!questions.is_done(number));
        let answer = |text: &str| text.as_bytes().to_vec();
        questions
            .answer(node(1), number, vec![(2, answer("c"))], true)
            .unwrap();
        questions
            .answer(
                node(2),
                number,
                vec![(2, answer("x")), (0, answer("a"))],
                true,
            )
            .unwrap();
        assert!(questions.is_done(number));
        let expected = [
            Some((node(2), answer("a"))),
            None,
            Some((node(1), answer("c"))),
        ];
        assert_eq!(questions.close(now, number), expected);
        assert!(!questions.is_slow(now, node(1)) && !questions.is_slow(now, node(2)));
    }

    #[test]
    fn who_does_not_answer_is_not_asked_for_a_while() {
        let mut questions = Questions::new(0);
        let now = Instant::now();
        let number = questions.ask(&[node(1), node(2)], 2);
        questions.answer(node(2), number, vec![], true).unwrap();
        assert!(!questions.is_done(number));
        questions.close(now, number);
        assert!(questions.is_slow(now, node(1)) && !questions.is_slow(now, node(2)));
        assert!(!questions.is_slow(now + SLOW_FOR, node(1)));
        let later = now + SLOW_FOR;
        let number = questions.ask(&[node(1)], 1);
        questions.close(later, number);
        assert!(questions.is_slow(later + SLOW_FOR, node(1)));
        let later = later + 2 * SLOW_FOR;
        assert!(!questions.is_slow(later, node(1)));
        let number = questions.ask(&[node(1)], 1);
        questions.answer(node(1), number, vec![], true).unwrap();
        questions.close(later, number);
        // Who answered starts anew; who is not waited for is not slow.
        let number = questions.ask(&[node(1), node(2)], 1);
        let result = vec![(0, vec![1])];
        questions.answer(node(2), number, result, false).unwrap();
        assert!(questions.is_done(number));
        questions.close(later, number);
        assert!(!questions.is_slow(later, node(1)));
    }

    #[test]
    fn what_was_not_asked_of_whom_is_not_heard() {
        let mut questions = Questions::new(0);
        let number = questions.ask(&[node(1)], 1);
        let result = || vec![(0, vec![7])];
        assert_eq!(questions.answer(node(2), number, result(), true), Ok(()));
        assert_eq!(questions.answer(node(1), 99, result(), true), Ok(()));
        let wrong = questions.answer(node(1), number, vec![(1, vec![7])], true);
        assert_eq!(wrong, Err(Rubbish::Place));
        for _ in 0..MAX_ANSWER_BYTES / 1_000_000 {
            let much = vec![(0, vec![7; 1_000_000])];
            assert_eq!(questions.answer(node(1), number, much, false), Ok(()));
        }
        let too_much = vec![(0, vec![7; 1_000_000])];
        let refused = questions.answer(node(1), number, too_much, false);
        assert_eq!(refused, Err(Rubbish::Place));
    }

    #[test]
    fn nobody_to_ask_is_an_answer() {
        let mut questions = Questions::new(0);
        let number = questions.ask(&[], 2);
        assert!(questions.is_done(number));
        assert_eq!(questions.close(Instant::now(), number), [None, None]);
    }
}
