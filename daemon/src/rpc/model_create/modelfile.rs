//! The Modelfile that makes a model again.

use super::parameters;
use hearth_protocol::{Instruction, Modelfile};
use hearth_store::ShownModel;
use serde_json::{Map, Value};
use std::path::Path;

/// Names files and not the model itself, so that what is taken out of it is not in what it makes. Where that cannot be, since
/// there are texts or options that no Modelfile can hold, it builds on the model.
pub(in crate::rpc) fn modelfile(shown: &ShownModel) -> String {
    let name = &shown.model.name;
    match written(shown) {
        Ok(text) => {
            format!("# To build on whatever has the name then, begin with: FROM {name}\n{text}")
        }
        Err(reason) => format!("# {reason}.\nFROM {name}\n"),
    }
}

fn written(shown: &ShownModel) -> Result<String, String> {
    let model = &shown.model;
    let path = |path: &Path| match path.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err("A path is not UTF-8".to_owned()),
    };
    let mut commands = vec![Instruction::From(path(&model.model_path)?)];
    if let Some(projector) = &model.projector {
        commands.push(Instruction::From(path(projector)?));
    }
    for adapter in &model.adapters {
        commands.push(Instruction::Adapter(path(adapter)?));
    }
    if let Some(draft) = &model.draft {
        commands.push(Instruction::Draft(path(draft)?));
    }
    commands.extend(model.template.clone().map(Instruction::Template));
    commands.extend(model.system.clone().map(Instruction::System));
    commands.extend(parameters_of(&model.params)?);
    let messages = model.messages.iter().cloned();
    commands.extend(
        messages
            .map(|message| Instruction::Message { role: message.role, content: message.content }),
    );
    commands.extend(model.config.renderer.clone().map(Instruction::Renderer));
    commands.extend(model.config.parser.clone().map(Instruction::Parser));
    commands.extend(model.config.requires.clone().map(Instruction::Requires));
    commands.extend(shown.licenses.iter().cloned().map(Instruction::License));
    Modelfile { commands }.write().map_err(|error| format!("Not all of it fits here: {error}"))
}

fn parameters_of(params: &Map<String, Value>) -> Result<Vec<Instruction>, String> {
    parameters::read(params).map_err(|error| format!("Not all of it fits here: {error}"))?;
    let mut commands = Vec::new();
    for (name, value) in params {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            commands.push(Instruction::Parameter { name: name.clone(), value });
        }
    }
    Ok(commands)
}
