// What all of these clients have of the daemon that they talk to: HEARTH_URL and HEARTH_SOCKET say where it is.

const { Agent, fetch } = require("undici");
const assert = require("node:assert/strict");

const url = process.env.HEARTH_URL;
const overSocket = new Agent({ connect: { socketPath: process.env.HEARTH_SOCKET } });

/** `fetch` over the Unix socket, for clients that take one. */
const fetchOverSocket = (what, init) => fetch(what, { ...init, dispatcher: overSocket });

async function running() {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "model.ps" });
  const headers = { "content-type": "application/json" };
  const reply = await fetchOverSocket("http://hearth/rpc", { method: "POST", headers, body });
  return (await reply.json()).result.models.reduce((sum, model) => sum + model.active_requests, 0);
}

/** Waits until no answer is computed any more, while this process and its connections go on. */
async function idle() {
  const deadline = Date.now() + 300_000;
  while ((await running()) > 0) assert(Date.now() < deadline, "the answer that was left goes on");
}

/** What a promise is rejected with, which must be of this kind. */
async function error(kind, promise) {
  try {
    await promise;
  } catch (error) {
    assert(error instanceof kind, `${error?.stack ?? error} is no ${kind.name}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

const product = (a, b) => a.reduce((sum, x, n) => sum + x * b[n], 0);

/** Embeddings of a cat, a kitten and a bank account. */
function alike([cat, kitten, bank]) {
  assert.equal(cat.length, 384);
  assert(product(cat, kitten) > product(cat, bank) + 0.2);
}

async function every(...checks) {
  for (const check of checks) {
    await check();
    console.log(check.name);
  }
  console.log("all is well");
}

module.exports = { CHAT: "smollm2:135m", EMBEDDING: "minilm", alike, assert, error, every, fetchOverSocket, idle, overSocket, url };
