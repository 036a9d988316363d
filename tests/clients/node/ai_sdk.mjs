// Vercel's AI SDK asks about a picture, whole and as a stream, with a second turn.
import { readFileSync } from "node:fs";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [address, picture] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "internvl", baseURL: `${address}/v1`, includeUsage: true });
const model = provider("demo");
const asked = [
  { type: "image", image: readFileSync(picture) },
  { type: "text", text: "What is in the picture?" },
];
const messages = [{ role: "user", content: asked }];
const options = { model, maxRetries: 0 };

const whole = await generateText({ ...options, messages });
const stream = streamText({ ...options, messages });
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
const usage = await stream.usage;
const second = await generateText({
  ...options,
  messages: [...messages, ...whole.response.messages, { role: "user", content: "What number is written?" }],
});
const refused = await generateText({ ...options, model: provider("gpt-9"), messages }).catch((error) => error);
console.log(
  JSON.stringify({
    whole: whole.text,
    reason: whole.finishReason,
    streamed,
    tokens: [whole.usage.outputTokens, usage.outputTokens],
    second: second.text,
    refused: [refused.name, refused.statusCode],
  }),
);
