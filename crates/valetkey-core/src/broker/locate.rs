//! Finding out what references mean, before anything is decided on them.

use std::sync::Arc;

use super::Broker;
use crate::audit::AuditError;
use crate::request::AccessRequest;
use crate::resolver::{Gap, Located, ResolveFailure};
use crate::target::Target;

/// A request on its way to a target.
struct Search {
    request: Arc<AccessRequest>,
    /// What is still to be asked; `None` where the search is over.
    gap: Option<Gap>,
}

impl Broker {
    /// Gives each request its target. What is not known is asked of the source, one level at a time, where
    /// some policy may allow the request and that was written down; what policy will refuse in any case is
    /// decided on what is known. Whoever may not use anything in a vault costs its source nothing.
    pub(super) async fn locate_all(
        &self,
        requests: Vec<AccessRequest>,
    ) -> Result<Vec<Arc<AccessRequest>>, AuditError> {
        let mut searches: Vec<_> = requests.into_iter().map(|request| self.look(request)).collect();
        for _ in 0..LEVELS {
            let open: Vec<_> = searches.iter_mut().filter(|search| search.gap.is_some()).collect();
            if open.is_empty() {
                break;
            }
            self.ask(open).await?;
        }
        Ok(searches.into_iter().map(|search| search.request).collect())
    }

    fn look(&self, request: AccessRequest) -> Search {
        let Located { target, gap } = self.directory.locate(&request.reference);
        Search { request: Arc::new(AccessRequest { target: Arc::new(target), ..request }), gap }
    }

    /// Asks about one level of each search, and looks again.
    async fn ask(&self, open: Vec<&mut Search>) -> Result<(), AuditError> {
        let questions = open.iter().filter_map(|search| Some((Arc::clone(&search.request), search.gap?)));
        let surveys = self.gate.survey(questions).await?;
        let asked: Vec<_> = surveys.iter().flatten().collect();
        let mut answers = match asked.is_empty() {
            true => Vec::new(),
            false => self.directory.learn(&asked).await,
        }
        .into_iter();
        for (search, survey) in open.into_iter().zip(&surveys) {
            let answer = survey.as_ref().map(|_| answers.next());
            match answer {
                None => search.gap = None,
                Some(Some(Ok(()))) => *search = self.look(search.request.as_ref().clone()),
                Some(Some(Err(failure))) => search.fail(failure),
                Some(None) => search.fail(crate::ResolveError::Unavailable.into()),
            }
        }
        Ok(())
    }
}

impl Search {
    fn fail(&mut self, failure: ResolveFailure) {
        let known = &self.request.target;
        let target = Target::Unknown { vault: known.vault().cloned(), item: known.item().cloned(), failure };
        self.request = Arc::new(AccessRequest { target: Arc::new(target), ..self.request.as_ref().clone() });
        self.gap = None;
    }
}

/// Vaults, items, fields.
const LEVELS: usize = 3;
