// The package `ai` of npm, with its provider for whatever speaks as OpenAI does.

const { CHAT, EMBEDDING, alike, assert, error, every, fetchOverSocket, idle, url } = require("./daemon.cjs");
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } = require("ai");
const { z } = require("zod");

const options = { name: "hearth", supportsStructuredOutputs: true, includeUsage: true };
const hearth = createOpenAICompatible({ ...options, baseURL: `${url}/v1` });
const asked = (more) => ({ model: hearth(CHAT), prompt: "Tell me about the sea.", temperature: 0, maxOutputTokens: 24, maxRetries: 0, ...more });

async function answers() {
  const whole = await generateText(asked({ system: "Be brief." }));
  assert(whole.text && whole.finishReason === "length" && whole.usage.outputTokens === 24);
  const streamed = streamText(asked());
  let n = 0;
  for await (const part of streamed.textStream) n += part ? 1 : 0;
  assert(n > 5 && (await streamed.text));
  assert.equal((await streamed.usage).outputTokens, 24);
}

async function overTheSocket() {
  const socket = createOpenAICompatible({ ...options, baseURL: "http://hearth/v1", fetch: fetchOverSocket });
  const streamed = streamText(asked({ model: socket(CHAT) }));
  assert(await streamed.text);
}

async function toolsRun() {
  const cities = [];
  const weather = tool({
    description: "Tells the weather in a city.",
    inputSchema: z.object({ city: z.string().max(20), days: z.int().min(1).max(7) }),
    execute: async ({ city }) => (cities.push(city), "It rains."),
  });
  const more = {
    prompt: "What is the weather in Paris?",
    tools: { weather },
    maxOutputTokens: 200,
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  };
  const whole = await generateText(asked(more));
  assert.equal(whole.steps.length, 2);
  assert(whole.steps[0].toolCalls.length > 0 && whole.text);
  assert.deepEqual(cities, whole.steps[0].toolCalls.map((call) => call.input.city));
  const kinds = new Set();
  for await (const part of streamText(asked(more)).fullStream) kinds.add(part.type);
  for (const kind of ["tool-input-delta", "tool-call", "tool-result", "text-delta", "finish"]) assert(kinds.has(kind), kind);
}

async function fitsASchema() {
  const schema = z.object({ age: z.int().min(0).max(120), name: z.string().max(20) });
  const more = { prompt: "Invent a person.", output: Output.object({ schema }), maxOutputTokens: 200 };
  const { output } = await generateText(asked(more));
  assert.deepEqual(Object.keys(schema.parse(output)), ["age", "name"]);
  const streamed = streamText(asked(more));
  let last;
  for await (const partial of streamed.partialOutputStream) last = partial;
  schema.parse(last);
}

async function embeds() {
  const model = hearth.embeddingModel(EMBEDDING);
  alike((await embedMany({ model, values: ["a cat", "a kitten", "a bank account"] })).embeddings);
}

async function mistakesAreTyped() {
  const unknown = await error(APICallError, generateText(asked({ model: hearth("none") })));
  assert.equal(unknown.statusCode, 404);
  assert.equal(unknown.data.error.code, "model_not_found");
  assert(!unknown.isRetryable);
}

async function cancels() {
  const leave = new AbortController();
  const streamed = streamText(asked({ maxOutputTokens: 8000, abortSignal: leave.signal }));
  const kinds = [];
  for await (const part of streamed.fullStream) {
    kinds.push(part.type);
    if (part.type === "text-delta") leave.abort();
  }
  assert.equal(kinds.at(-1), "abort");
  await idle();
}

every(answers, overTheSocket, toolsRun, fitsASchema, embeds, mistakesAreTyped, cancels);
