// Vercel's AI SDK asks for an object of a schema, and lets the model call tools, whole and as a stream.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, stepCountIs, streamObject, streamText, tool } from "ai";

const [address] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "internvl",
  baseURL: `${address}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const options = { model: provider("demo"), maxRetries: 0, prompt: "Which shapes are red?" };
const colour = { enum: ["red", "blue"] };
const schema = jsonSchema({
  type: "object",
  properties: { colour, exact: { type: "boolean" } },
  required: ["colour", "exact"],
  additionalProperties: false,
});

const { object } = await generateObject({ ...options, schema });
const parts = streamObject({ ...options, schema });
let partial = null;
for await (const each of parts.partialObjectStream) partial = each;

const calls = [];
const look = tool({
  description: "Looks at shapes.",
  inputSchema: schema,
  execute: async (input) => {
    calls.push(input);
    return { shapes: 3 };
  },
});
const tools = { look };
const called = await generateText({ ...options, tools, toolChoice: "required", stopWhen: stepCountIs(2) });
const stream = streamText({ ...options, tools, toolChoice: { type: "tool", toolName: "look" } });
const streamed = [];
for await (const part of stream.fullStream) if (part.type === "tool-call") streamed.push(part);
const wrong = jsonSchema({ type: "frog" });
const refused = await generateObject({ ...options, schema: wrong }).catch((error) => error);
console.log(
  JSON.stringify({
    object,
    partial,
    calls,
    steps: called.steps.map((step) => step.finishReason),
    cached: called.steps[1].usage.cachedInputTokens,
    read: called.steps[1].usage.inputTokens,
    streamed: streamed.map((each) => [each.toolName, each.input, each.invalid ?? false]),
    reason: await stream.finishReason,
    refused: [refused.name, refused.statusCode],
  }),
);
