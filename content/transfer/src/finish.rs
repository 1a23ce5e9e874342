//! Handing a layer that has come to the content store.

use crate::{Partial, TransferError, partial::Home};
use maelstrom_content::{ContentHash, Pin, Store};
use std::{collections::HashMap, fs};

impl Partial {
    /// Moves a layer that has come whole into the content store, and [closes](Self::close) it.
    /// `before_finish` is called when all is there, right before the store looks at its size.
    ///
    /// The files of this partial layer stay readable until it is removed.
    ///
    /// # Errors
    ///
    /// [`TransferError::Incomplete`] if contents that the store had have been evicted meanwhile:
    /// open the partial layer again and fetch them.
    pub fn finish(
        &self,
        store: &Store,
        before_finish: impl FnOnce(),
    ) -> Result<Pin, TransferError> {
        self.close();
        let plan = self.plan();
        let id = plan.id();
        let blobs: HashMap<ContentHash, usize> = plan
            .contents()
            .iter()
            .enumerate()
            .map(|(blob, content)| (content.hash, blob))
            .collect();
        let mut import = store.import(id, plan.encoded())?;
        let missing = import.missing();
        let gone = |(content, _): &&(ContentHash, u64)| self.home(blobs[content]) == Home::Store;
        let evicted = missing.iter().filter(gone).count();
        if evicted > 0 {
            return Err(TransferError::Incomplete {
                id,
                missing: evicted,
            });
        }
        for (content, bytes) in missing {
            let blob = blobs[&content];
            if self.home(blob) == Home::Own {
                let own = self.own_path(blob);
                let aside = import.aside();
                fs::hard_link(&own, &aside)
                    .or_else(|_| fs::copy(&own, &aside).map(drop))
                    .map_err(TransferError::io("move", &own))?;
                import.add_verified_file(content, &aside, bytes)?;
            } else {
                let mut data = vec![0; bytes as usize];
                let failed = TransferError::io("read", self.directory());
                self.reader(blob)
                    .and_then(|reader| reader.read_exact_at(&mut data, 0))
                    .map_err(failed)?;
                import.add_bytes(content, &data)?;
            }
        }
        before_finish();
        import.finish()?;
        let pin = store.pin(id)?;
        // The pin keeps it from now on.
        store.release(id);
        Ok(pin)
    }
}
