// The client `openai` of npm.

const { CHAT, EMBEDDING, alike, assert, error, every, idle, overSocket, url } = require("./daemon.cjs");
const { fetch } = require("undici");
const OpenAI = require("openai");
const { zodResponseFormat } = require("openai/helpers/zod");
const { z } = require("zod");

const options = { baseURL: `${url}/v1`, apiKey: "any", maxRetries: 0 };
const client = new OpenAI(options);
const QUESTION = [{ role: "user", content: "Tell me about the sea." }];
const asked = (more) => ({ model: CHAT, messages: QUESTION, temperature: 0, max_tokens: 24, ...more });
const Weather = z.object({ city: z.string().max(20), days: z.int().min(1).max(7) });
const weather = { name: "get_weather", description: "Tells the weather in a city.", strict: true };

async function answers() {
  const reply = await client.chat.completions.create(asked());
  assert.equal(reply.choices[0].finish_reason, "length");
  assert(reply.choices[0].message.content);
  assert.equal(reply.usage.completion_tokens, 24);

  const stream = await client.chat.completions.create(asked({ stream: true, stream_options: { include_usage: true } }));
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(usage.completion_tokens, 24);
  assert(text);
}

async function overTheSocket() {
  const socket = new OpenAI({ ...options, baseURL: "http://hearth/v1", fetch, fetchOptions: { dispatcher: overSocket } });
  const reply = await socket.chat.completions.create(asked());
  assert.equal(reply.usage.completion_tokens, 24);
  const streamed = await socket.chat.completions.stream(asked()).finalContent();
  assert(streamed);
}

async function toolsRun() {
  const cities = [];
  const tool = {
    ...weather,
    parameters: z.toJSONSchema(Weather),
    parse: (text) => Weather.parse(JSON.parse(text)),
    function: ({ city }) => (cities.push(city), "It rains."),
  };
  const required = { tools: [{ type: "function", function: tool }], tool_choice: "required", max_tokens: 200 };
  const whole = await client.chat.completions.create(asked({ ...required, parallel_tool_calls: false }));
  assert.equal(whole.choices[0].finish_reason, "tool_calls");
  Weather.parse(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments));

  // The helper that calls the tool and asks again. A forced tool is called once.
  const forced = { ...required, tool_choice: { type: "function", function: { name: "get_weather" } }, parallel_tool_calls: false };
  const runner = client.chat.completions.runTools({ ...asked(forced), stream: true });
  const call = await runner.finalFunctionToolCall();
  assert.equal(call.name, "get_weather");
  assert.deepEqual(cities, [JSON.parse(call.arguments).city]);
}

async function fitsASchema() {
  const Person = z.object({ age: z.int().min(0).max(120), name: z.string().max(20), likes: z.array(z.enum(["sea", "sky"])).max(2) });
  const more = { messages: [{ role: "user", content: "Invent a person." }], response_format: zodResponseFormat(Person, "person"), max_tokens: 200 };
  const reply = await client.chat.completions.parse(asked(more));
  const person = reply.choices[0].message.parsed;
  assert.deepEqual(Object.keys(person), ["age", "name", "likes"]);
  const streamed = await client.chat.completions.stream(asked(more)).finalChatCompletion();
  Person.parse(streamed.choices[0].message.parsed);
}

async function embeds() {
  const reply = await client.embeddings.create({ model: EMBEDDING, input: ["a cat", "a kitten", "a bank account"] });
  alike(reply.data.map((entry) => entry.embedding));
}

async function models() {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.deepEqual(names.sort(), [`${EMBEDDING}:latest`, CHAT]);
}

async function mistakesAreTyped() {
  const unknown = await error(OpenAI.NotFoundError, client.chat.completions.create(asked({ model: "none" })));
  assert.equal(unknown.code, "model_not_found");
  const long = [{ role: "user", content: "word ".repeat(20_000) }];
  const overflow = await error(OpenAI.BadRequestError, client.chat.completions.create(asked({ messages: long })));
  assert.equal(overflow.code, "context_length_exceeded");
  await error(OpenAI.BadRequestError, client.chat.completions.create(asked({ stream: true, n: 0 })));
}

async function cancels() {
  const leave = new AbortController();
  const stream = await client.chat.completions.create(asked({ stream: true, max_tokens: 8000 }), { signal: leave.signal });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) leave.abort();
  await idle();

  const whole = new AbortController();
  const waiting = client.chat.completions.create(asked({ max_tokens: 8000 }), { signal: whole.signal });
  const other = await client.chat.completions.create(asked({ max_tokens: 1 }));
  assert(other.id);
  whole.abort();
  await error(OpenAI.APIUserAbortError, waiting);
  await idle();
}

every(answers, overTheSocket, toolsRun, fitsASchema, embeds, models, mistakesAreTyped, cancels);
