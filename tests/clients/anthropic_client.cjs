// The client `@anthropic-ai/sdk` of npm.

const { CHAT, assert, error, every, idle, overSocket, url } = require("./daemon.cjs");
const { fetch } = require("undici");
const Anthropic = require("@anthropic-ai/sdk");
const { zodOutputFormat } = require("@anthropic-ai/sdk/helpers/zod");
const { betaZodTool } = require("@anthropic-ai/sdk/helpers/beta/zod");
const { z } = require("zod");

const options = { baseURL: url, apiKey: "any", maxRetries: 0 };
const client = new Anthropic(options);
const user = (content) => [{ role: "user", content }];
const asked = (more) => ({ model: CHAT, max_tokens: 24, temperature: 0, messages: user("Tell me about the sea."), ...more });

async function answers() {
  const whole = await client.messages.create(asked({ system: "Be brief." }));
  assert(whole.content[0].text && whole.stop_reason === "max_tokens" && whole.usage.output_tokens === 24);
  const pieces = [];
  const stream = client.messages.stream(asked()).on("text", (text) => pieces.push(text));
  const message = await stream.finalMessage();
  assert(pieces.length > 5);
  assert.equal(pieces.join(""), message.content[0].text);
}

async function overTheSocket() {
  const socket = new Anthropic({ ...options, baseURL: "http://hearth", fetch, fetchOptions: { dispatcher: overSocket } });
  const kinds = [];
  for await (const event of await socket.messages.create(asked({ stream: true }))) kinds.push(event.type);
  assert(kinds[0] === "message_start" && kinds.at(-1) === "message_stop");
}

async function toolsRun() {
  const cities = [];
  const weather = betaZodTool({
    name: "get_weather",
    description: "Tells the weather in a city.",
    inputSchema: z.object({ city: z.string().max(20), days: z.int().min(1).max(7) }),
    run: ({ city }) => (cities.push(city), "It rains."),
  });
  const more = { messages: user("What is the weather in Paris?"), tools: [weather], tool_choice: { type: "any" }, max_tokens: 200 };
  // One call of the tool, whose answer would be asked about next.
  const runner = client.beta.messages.toolRunner({ ...asked(more), max_iterations: 1 });
  const message = await runner;
  assert.equal(message.stop_reason, "tool_use");
  const calls = message.content.filter((block) => block.type === "tool_use");
  assert.deepEqual(cities, calls.map((call) => call.input.city));

  const { name, description, input_schema } = weather;
  const plain = { ...more, tools: [{ name, description, input_schema }] };
  const streamed = await client.messages.stream(asked(plain)).finalMessage();
  assert.deepEqual(Object.keys(streamed.content.at(-1).input), ["city", "days"]);
  const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: "It rains." }));
  const talk = [...more.messages, { role: "assistant", content: message.content }, { role: "user", content: results }];
  const told = await client.messages.create(asked({ ...plain, messages: talk, tool_choice: { type: "none" } }));
  assert(told.content[0].text);
}

async function fitsASchema() {
  // This client makes remarks of bounds and lengths, which Anthropic's own service does not know either.
  const Animal = z.object({ kind: z.enum(["cat", "dog"]), isOld: z.boolean() });
  const more = { messages: user("Invent an animal."), output_config: { format: zodOutputFormat(Animal) }, max_tokens: 200 };
  const { parsed_output } = await client.messages.parse(asked(more));
  assert.deepEqual(Object.keys(parsed_output), ["kind", "isOld"]);
  const streamed = await client.messages.stream(asked(more)).finalMessage();
  Animal.parse(streamed.parsed_output);
}

async function counts() {
  const { input_tokens } = await client.messages.countTokens({ model: CHAT, messages: user("Tell me about the sea.") });
  const { usage } = await client.messages.create(asked());
  assert.equal(input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
}

async function mistakesAreTyped() {
  const unknown = await error(Anthropic.NotFoundError, client.messages.create(asked({ model: "none" })));
  assert.equal(unknown.error.error.type, "not_found_error");
  await error(Anthropic.BadRequestError, client.messages.create(asked({ max_tokens: -1 })));
  await error(Anthropic.NotFoundError, client.messages.stream(asked({ model: "none" })).finalMessage());
}

async function cancels() {
  const stream = client.messages.stream(asked({ max_tokens: 8000 }));
  stream.on("text", () => stream.abort());
  await error(Anthropic.APIUserAbortError, stream.done());
  await idle();
}

every(answers, overTheSocket, toolsRun, fitsASchema, counts, mistakesAreTyped, cancels);
