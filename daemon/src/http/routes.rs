//! Routes, with what `/openapi.json` says of them: a route is added together with its description, so that neither can lack what
//! the other has.

use super::error_schema;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

pub(super) const JSON: &str = "application/json";
pub(super) const BYTES: &str = "application/octet-stream";

pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type, which is inlined unless it holds itself.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// `S` is what the handlers share that are added, as in a router.
pub(super) struct Routes<S = ()> {
    router: Router<S>,
    operations: Vec<Operation>,
}

struct Operation {
    method: &'static str,
    path: &'static str,
    says: Says,
}

/// What a route does, takes and answers.
pub(super) struct Says {
    summary: &'static str,
    /// By media type.
    request: Option<(&'static str, Option<SchemaOf>)>,
    /// What it answers where it does what it was asked for, by status and media type.
    replies: Vec<(u16, &'static str, Option<SchemaOf>)>,
}

impl Says {
    pub(super) fn new(summary: &'static str) -> Self {
        Self { summary, request: None, replies: Vec::new() }
    }

    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some((JSON, Some(schema::<T>)));
        self
    }

    pub(super) fn takes_bytes(mut self) -> Self {
        self.request = Some((BYTES, None));
        self
    }

    pub(super) fn answers<T: JsonSchema>(mut self) -> Self {
        self.replies.push((200, JSON, Some(schema::<T>)));
        self
    }

    /// What is no JSON.
    pub(super) fn sends(mut self, media_type: &'static str) -> Self {
        self.replies.push((200, media_type, None));
        self
    }

    /// A status without a body.
    pub(super) fn ends(mut self, status: u16) -> Self {
        self.replies.push((status, "", None));
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(super) fn get<H, T>(self, path: &'static str, handler: H, says: Says) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(MethodFilter::GET, "get", path, handler, says)
    }

    pub(super) fn head<H, T>(self, path: &'static str, handler: H, says: Says) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(MethodFilter::HEAD, "head", path, handler, says)
    }

    pub(super) fn post<H, T>(self, path: &'static str, handler: H, says: Says) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(MethodFilter::POST, "post", path, handler, says)
    }

    pub(super) fn delete<H, T>(self, path: &'static str, handler: H, says: Says) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(MethodFilter::DELETE, "delete", path, handler, says)
    }

    fn add<H, T>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &'static str,
        handler: H,
        says: Says,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.route(path, on(filter, handler));
        self.operations.push(Operation { method, path, says });
        self
    }

    pub(super) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.extend(other.operations);
        self
    }

    pub(super) fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), operations: self.operations }
    }
}

impl Routes {
    pub(super) fn into_router(self) -> Router {
        self.router
    }

    /// The OpenAPI document.
    pub(super) fn document(self) -> Value {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.inline_subschemas = true;
        });
        let mut taken = settings.clone().for_deserialize().into_generator();
        let mut given = settings.for_serialize().into_generator();
        let mut paths = Map::new();
        for Operation { method, path, says } in self.operations {
            let operation = says.describe(method, path, &mut taken, &mut given);
            // Whether the rest of a path may have slashes is nothing that OpenAPI could say.
            let path = path.replace("{*", "{");
            paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
        }
        let mut schemas = taken.take_definitions(true);
        schemas.extend(given.take_definitions(true));
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Hearth",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Ollama's API, OpenAI's and Anthropic's, and files for Hearth's own protocol, which `POST /rpc` and `rpc.discover` have.",
            },
            "paths": paths,
            "components": { "schemas": schemas },
        })
    }
}

impl Says {
    fn describe(
        self,
        method: &str,
        path: &str,
        taken: &mut SchemaGenerator,
        given: &mut SchemaGenerator,
    ) -> Value {
        let content = |media_type: &str, schema: Option<Schema>| json!({ media_type: { "schema": schema.map_or_else(|| json!({}), Schema::to_value) } });
        let mut responses = Map::new();
        for (status, media_type, schema) in self.replies {
            let reply = responses
                .entry(status.to_string())
                .or_insert_with(|| json!({ "description": "It was done." }));
            if !media_type.is_empty() {
                let described = content(media_type, schema.map(|of| of(given)));
                reply["content"][media_type] = described[media_type].clone();
            }
        }
        let error = content(JSON, Some(error_schema(path)(given)));
        for (status, why) in [("4XX", "It cannot be done so."), ("5XX", "It failed.")] {
            let mut reply = json!({ "description": why });
            if method != "head" {
                reply["content"] = error.clone();
            }
            responses.insert(status.into(), reply);
        }
        let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        let parameters: Vec<Value> = names
            .map(|name| {
                let name = name.trim_start_matches('*');
                json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
            })
            .collect();
        let mut operation =
            json!({ "summary": self.summary, "parameters": parameters, "responses": responses });
        if let Some((media_type, schema)) = self.request {
            let content = content(media_type, schema.map(|of| of(taken)));
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
        operation
    }
}

#[cfg(test)]
mod tests {
    use crate::http::routes;

    #[test]
    fn the_openapi_document_has_every_route_and_resolves_every_reference() {
        let document = routes().document();
        for path in ["/api/chat", "/v1/chat/completions", "/v1/messages", "/openapi.json"] {
            assert!(document["paths"][path].is_object(), "`{path}` is missing");
        }
        let text = document.to_string();
        for piece in text.split("\"$ref\":\"").skip(1) {
            let pointer = piece.split('"').next().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "`{pointer}` is not defined");
        }
    }
}
