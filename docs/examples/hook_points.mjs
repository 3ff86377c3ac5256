// Reads a hook point in Node: npm install onnxruntime-web (or onnxruntime-node, which is faster).
import { readFile } from 'node:fs/promises';
import * as ort from 'onnxruntime-web';

const bundle = process.argv[2];
const session = await ort.InferenceSession.create(await readFile(`${bundle}/onnx/model_hooks.onnx`), {
  // The graph names its file of weights; onnxruntime-web has to be given what is in it.
  externalData: [{ path: 'model.onnx_data', data: await readFile(`${bundle}/onnx/model.onnx_data`) }],
});

const ids = [2899n, 2759n, 258n, 728n]; // "Once upon a time" for the model that ships; int64 is BigInt in JavaScript
const integers = (values) => new ort.Tensor('int64', BigInt64Array.from(values), [1, values.length]);
const feed = {
  input_ids: integers(ids),
  attention_mask: integers(ids.map(() => 1n)),
  position_ids: integers(ids.map((_, place) => BigInt(place))),
};
const { num_hidden_layers: layers, num_key_value_heads: heads, head_size: width } = JSON.parse(
  await readFile(`${bundle}/genai_config.json`, 'utf8'),
).model.decoder;
for (let layer = 0; layer < layers; layer++) {
  for (const part of ['key', 'value']) {
    feed[`past_key_values.${layer}.${part}`] = new ort.Tensor('float32', new Float32Array(0), [1, heads, 0, width]);
  }
}

const { logits, 'blocks.0.attn.hook_pattern': pattern } = await session.run(feed, ['logits', 'blocks.0.attn.hook_pattern']);
console.log('shape', ...pattern.dims);
const [, , queries, keys] = pattern.dims;
console.log('head 0, last token', ...[...pattern.data.slice((queries - 1) * keys, queries * keys)].map((x) => x.toFixed(4)));
const last = logits.data.slice(-logits.dims[2]);
console.log('next token', last.indexOf(Math.max(...last)));
