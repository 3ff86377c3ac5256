// onnxruntime-web (WebAssembly, one thread), in Node and in a page.
import { checking, close, inNode, main, read } from './cases.mjs';

const ort = await import(inNode ? 'onnxruntime-web' : '/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs');
ort.env.wasm.numThreads = 1;

// Runs a graph of a bundle once, and returns all of its outputs.
async function run({ name }, graph, feed) {
  const session = await ort.InferenceSession.create(await read(`${name}/bundle/onnx/${graph}`), {
    executionProviders: ['wasm'],
    externalData: [{ path: 'model.onnx_data', data: await read(`${name}/bundle/onnx/model.onnx_data`) }],
  });
  try {
    return await session.run(feed);
  } finally {
    await session.release();
  }
}

function tensor({ data, shape }) {
  return new ort.Tensor(data instanceof BigInt64Array ? 'int64' : 'float32', data, shape);
}

function feedOf({ values, decoder }, isText) {
  const names = ['input_ids', 'attention_mask', 'position_ids', ...(isText ? [] : ['grad.logits'])];
  const feed = Object.fromEntries(names.map((name) => [name, tensor(values[name])]));
  const shape = [values.input_ids.shape[0], decoder.num_key_value_heads, 0, decoder.head_size];
  for (let layer = 0; isText && layer < decoder.num_hidden_layers; layer++) {
    for (const part of ['key', 'value']) {
      feed[`past_key_values.${layer}.${part}`] = tensor({ data: new Float32Array(0), shape });
    }
  }
  return feed;
}

await main(async (one) => {
  const text = feedOf(one, true);
  const points = Object.keys(one.values).filter((name) => !(name in text) && !name.startsWith('grad.'));
  await checking(one, 'logits', async () => {
    close((await run(one, 'model.onnx', text)).logits, one.values.logits, 'logits');
  });
  await checking(one, 'hook points', async () => {
    const found = await run(one, 'model_hooks.onnx', text);
    for (const name of points) close(found[name], one.values[name], name);
  });
  if (!('grad.logits' in one.values)) return;
  await checking(one, 'gradients', async () => {
    const feed = feedOf(one, false);
    const found = await run(one, 'model_gradients.onnx', feed);
    for (const name of Object.keys(one.values)) if (!(name in feed)) close(found[name], one.values[name], name);
  });
});
