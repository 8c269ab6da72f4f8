"""What schemathesis asks, made worth asking: most requests name a model that is there and have what they must have."""

import random

import schemathesis

# Of these the name stays as it was made up: they would replace the model, or take it away.
CHANGING = ("/api/create", "/api/delete")


@schemathesis.hook
def before_call(ctx, case, kwargs):
    body = case.body
    if not isinstance(body, dict) or case.path in CHANGING:
        return
    # As it is now and then, but the same for the same request.
    if random.Random(str(body)).random() < 0.1:
        return
    if case.path == "/api/copy":
        body["source"] = "m"
    else:
        body["model"] = "ranks" if "rerank" in case.path else "m"
    if case.path == "/v1/messages":
        body.setdefault("max_tokens", 5)
