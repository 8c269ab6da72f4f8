// The client `ollama` of npm.

const { CHAT, EMBEDDING, alike, assert, error, every, fetchOverSocket, idle, url } = require("./daemon.cjs");
const { Ollama } = require("ollama");
const { z } = require("zod");

const client = new Ollama({ host: url });
const user = (content) => [{ role: "user", content }];
const asked = (more) => ({ model: CHAT, messages: user("Say hello."), options: { temperature: 0, num_predict: 24 }, ...more });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Tells the weather in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function answers() {
  const whole = await client.chat(asked());
  assert(whole.done && whole.message.content && whole.eval_count > 0 && whole.total_duration > whole.eval_duration);
  let text = "";
  for await (const part of await client.chat(asked({ stream: true }))) text += part.message.content;
  assert(text.trim());
  const { response, context } = await client.generate({ model: CHAT, prompt: "The sea is", options: { num_predict: 4 } });
  assert(response && context.length);
}

async function overTheSocket() {
  const socket = new Ollama({ host: "http://localhost", fetch: fetchOverSocket });
  let last;
  for await (const part of await socket.generate({ model: CHAT, prompt: "The sky is", stream: true, options: { num_predict: 8 } })) last = part;
  assert(last.done && last.eval_count === 8);
  assert((await socket.ps()).models.some((model) => model.name === CHAT));
}

async function models() {
  const names = (await client.list()).models.map((model) => model.name);
  assert.deepEqual(names.sort(), [`${EMBEDDING}:latest`, CHAT]);
  assert((await client.show({ model: CHAT })).capabilities.includes("completion"));
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
  for await (const progress of await client.create({ model: "brief", from: CHAT, system: "Be brief.", stream: true })) assert(progress.status);
  assert.equal((await client.delete({ model: "brief" })).status, "success");
}

async function toolsGoOn() {
  const said = await client.chat(asked({ messages: user("What is the weather in Oslo?"), tools: [weather] }));
  // A model of this size may just talk.
  for (const call of said.message.tool_calls ?? []) assert.equal(typeof call.function.arguments, "object");
  const call = { function: { name: "get_weather", arguments: { city: "Oslo" } } };
  const messages = [
    ...user("What is the weather in Oslo?"),
    { role: "assistant", content: "", tool_calls: [call] },
    { role: "tool", tool_name: "get_weather", content: "It rains." },
  ];
  assert((await client.chat(asked({ messages, tools: [weather] }))).message.content.trim());
}

async function fitsASchema() {
  const Person = z.object({ name: z.string().max(20), age: z.int().min(0).max(120) });
  const more = { messages: user("Ada is 36."), format: z.toJSONSchema(Person), options: { temperature: 0 } };
  const person = JSON.parse((await client.chat(asked(more))).message.content);
  assert.deepEqual(Object.keys(Person.parse(person)), ["name", "age"]);
}

async function embeds() {
  alike((await client.embed({ model: EMBEDDING, input: ["a cat", "a kitten", "a bank account"] })).embeddings);
  assert.equal((await client.embeddings({ model: EMBEDDING, prompt: "a cat" })).embedding.length, 384);
}

async function mistakesAreTyped() {
  const none = asked({ model: "none" });
  for (const mistake of [() => client.chat(none), () => client.chat({ ...none, stream: true }), () => client.show({ model: "none" })]) {
    const told = await error(Error, mistake());
    assert(told.name === "ResponseError" && told.status_code === 404, told.stack);
    assert.match(told.error, /model 'none' not found/);
  }
}

async function cancels() {
  const stream = await client.generate({ model: CHAT, prompt: "A long story:", stream: true, options: { num_predict: 8000 } });
  const listen = async () => {
    for await (const part of stream) if (part.response) stream.abort();
  };
  assert.equal((await error(Error, listen())).name, "AbortError");
  await idle();
}

every(answers, overTheSocket, models, toolsGoOn, fitsASchema, embeds, mistakesAreTyped, cancels);
