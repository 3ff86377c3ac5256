// Generates with transformers.js in Node: npm install @huggingface/transformers
import path from 'node:path';
import { env, pipeline } from '@huggingface/transformers';

const bundle = path.resolve(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(bundle);
const generate = await pipeline('text-generation', path.basename(bundle), { dtype: 'fp32' });
const [{ generated_text: text }] = await generate('Once upon a time', { max_new_tokens: 12, do_sample: false });
console.log(text);
