// transformers.js, in Node and in a page, from a folder or a server of its own.
import { checking, equal, inNode, main } from './cases.mjs';

const served = '/node_modules/@huggingface/transformers';
const { env, pipeline } = await import(inNode ? '@huggingface/transformers' : `${served}/dist/transformers.min.js`);
env.allowRemoteModels = false;
env.allowLocalModels = true; // which it is not in a page, unless this says so
env.localModelPath = inNode ? `${process.argv[2]}/` : '/bundles/';
if (!inNode) {
  env.useBrowserCache = false;
  // Else the WebAssembly comes from another server.
  env.backends.onnx.wasm.wasmPaths = `${location.origin}${served}/node_modules/onnxruntime-web/dist/`;
}

function numbers(tensor) {
  return tensor.tolist().map((row) => row.map(Number));
}

await main(async (one) => {
  const options = { max_new_tokens: one.greedy[0].length, do_sample: false };
  let generate;
  await checking(one, 'tokens', async () => {
    generate = await pipeline('text-generation', `${one.name}/bundle`, { dtype: 'fp32', device: inNode ? 'cpu' : 'wasm' });
    for (const [row, prompt] of one.prompts.entries()) {
      const inputs = generate.tokenizer(prompt);
      equal(numbers(inputs.input_ids), [one.ids[row]], `the tokens of ${prompt}`);
      const made = numbers(await generate.model.generate({ ...inputs, ...options }));
      equal(made, [[...one.ids[row], ...one.greedy[row]]], `the tokens after ${prompt}`);
    }
  });
  await checking(one, 'batches', async () => {
    const inputs = generate.tokenizer(one.prompts, { padding: true });
    const made = numbers(await generate.model.generate({ ...inputs, ...options }));
    const longest = Math.max(...one.ids.map((ids) => ids.length));
    equal(made.map((row) => row.slice(longest)), one.greedy, 'the tokens after the prompts');
  });
  await checking(one, 'texts', async () => {
    const expected = one.ids.map((ids, row) => {
      return generate.tokenizer.decode([...ids, ...one.greedy[row]], { skip_special_tokens: true });
    });
    const made = await generate(one.prompts, options);
    equal(made.map(([{ generated_text: text }]) => text), expected, 'the texts');
  });
  await generate.dispose();
});
