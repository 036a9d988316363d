// OpenAI's package asks about a picture, whole and as a stream, and then what the server has not.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const [address, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "any", maxRetries: 0 });
const url = `data:image/png;base64,${readFileSync(picture).toString("base64")}`;
const question = "What is in the picture?";
const messages = [
  {
    role: "user",
    content: [
      { type: "image_url", image_url: { url } },
      { type: "text", text: question },
    ],
  },
];

const whole = await client.chat.completions.create({ model: "demo", messages });
const chunks = await client.chat.completions.create({
  model: "demo",
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
let streamed = "";
let usage = null;
for await (const chunk of chunks) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  usage = chunk.usage ?? usage;
}
const input = [
  {
    role: "user",
    content: [
      { type: "input_image", image_url: url, detail: "auto" },
      { type: "input_text", text: question },
    ],
  },
];
const response = await client.responses.stream({ model: "demo", input }).finalResponse();
const refused = await client.chat.completions.create({ model: "gpt-9", messages }).catch((error) => error);
console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed,
    tokens: [whole.usage.completion_tokens, usage.completion_tokens],
    response: response.output_text,
    refused: [refused.constructor.name, refused.status, refused.code],
  }),
);
