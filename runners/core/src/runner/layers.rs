//! The layers of one round. Built anew in each, since `--watch` may have seen files change.

use crate::client::Client;
use maelstrom_content::LayerId;
use maelstrom_spec::{ContainerSpec, JobError, LayerSpec};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

type Built = Arc<OnceLock<Result<LayerId, String>>>;

/// The layers of one round.
#[derive(Default)]
pub(super) struct RoundLayers {
    built: Mutex<HashMap<LayerSpec, Built>>,
}

impl RoundLayers {
    /// Makes the layers of a container, each once a round whoever asks, and puts them in the place
    /// of their specifications.
    pub(super) fn build(
        &self,
        client: &Client,
        container: &mut ContainerSpec,
    ) -> Result<(), JobError> {
        for layer in &mut container.layers {
            // What commands make needs to run them.
            if !matches!(layer, LayerSpec::Built { .. } | LayerSpec::Command { .. }) {
                let id = self.id(client, layer).map_err(JobError::Remote)?;
                *layer = LayerSpec::Built { id: *id.as_bytes() };
            }
        }
        without_repetitions(&mut container.layers);
        Ok(())
    }

    fn id(&self, client: &Client, layer: &LayerSpec) -> Result<LayerId, String> {
        let built = {
            let mut layers = self.built.lock().unwrap_or_else(PoisonError::into_inner);
            layers.entry(layer.clone()).or_default().clone()
        };
        let build = || client.store().build(layer, client.build_context());
        built
            .get_or_init(|| build().map_err(|error| error.to_string()))
            .clone()
    }
}

/// Leaves of equal layers only the topmost, which hides the others anyhow: overlayfs takes none
/// twice.
fn without_repetitions(layers: &mut Vec<LayerSpec>) {
    let mut seen = HashSet::new();
    layers.reverse();
    layers.retain(|layer| seen.insert(layer.clone()));
    layers.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_layers_the_topmost_stays() {
        let layer = |byte| LayerSpec::Built { id: [byte; 32] };
        let mut layers = vec![layer(1), layer(2), layer(1), layer(3)];
        without_repetitions(&mut layers);
        assert_eq!(layers, [layer(2), layer(1), layer(3)]);
    }
}
