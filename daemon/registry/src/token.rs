//! What is shown to a registry that asks who is there.

use crate::auth::{self, Challenge};
use crate::error::PullError;
use crate::http::{Endpoint, Secret, authority, may_follow, secret_value};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use std::sync::Arc;

const MAX_TOKEN_BYTES: usize = 64 << 10;

impl Endpoint {
    /// What to show from now on, if there is anything.
    pub(crate) async fn answer(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, PullError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|text| auth::parse(text.to_str().ok()?)).next();
        match challenge {
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.token(&realm, service.as_deref(), scope.as_deref()).await.map(Some)
            }
            Some(Challenge::Basic) => Ok(self.basic(&self.host)),
            None => Ok(None),
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<HeaderValue, PullError> {
        let realm_url = Url::parse(realm).ok().filter(|realm| may_follow(&self.base, realm));
        let Some(mut url) = realm_url else {
            return Err(self.bad_answer("it sends for a token to what is no URL to go to".into()));
        };
        let scopes = scope.unwrap_or_default().split_whitespace();
        let pairs = service.map(|service| ("service", service)).into_iter();
        url.query_pairs_mut().extend_pairs(pairs.chain(scopes.map(|scope| ("scope", scope))));
        // The realm may be anywhere: it gets what is configured for it, not what is for the registry.
        let shown = match self.key()? {
            Some(key) if authority(&url) == self.host => {
                key.sign(&mut url).and_then(|text| secret_value(&text))
            }
            _ => self.basic(&authority(&url)),
        };
        let mut request = self.net.client()?.get(url.clone());
        if let Some(value) = shown {
            request = request.header(AUTHORIZATION, value);
        }
        let response = self.in_time(request.send()).await?;
        let response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if !status.is_success() {
            let realm = Self::new(Arc::clone(&self.net), url.clone());
            return realm.accept_nothing(&url, status, response).await;
        }
        let body = self.read(response, MAX_TOKEN_BYTES).await?;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body["token"].as_str().or(body["access_token"].as_str());
        token
            .and_then(|token| secret_value(&format!("Bearer {token}")))
            .ok_or_else(|| self.bad_answer("no token where one was to be had".into()))
    }

    fn basic(&self, host: &str) -> Option<HeaderValue> {
        let Some(Secret::Password { user, password }) = self.net.settings.secrets.get(host) else {
            return None;
        };
        secret_value(&format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
    }
}
