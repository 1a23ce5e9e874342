//! Who is there and what they offer: membership, adverts, election. No I/O, no clock.
