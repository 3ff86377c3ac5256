// What the JavaScript scripts share, in Node and in a page; `cases.py` is the same for Python.

export const inNode = typeof window === 'undefined';
const folder = inNode ? process.argv[2] : '/bundles';

// The content of a file in the folder of the bundles.
export async function read(path) {
  if (inNode) return new Uint8Array(await (await import('node:fs/promises')).readFile(`${folder}/${path}`));
  const answer = await fetch(`${folder}/${path}`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function json(path) {
  return JSON.parse(new TextDecoder().decode(await read(path)));
}

// The arrays of a safetensors file: the length of the header, the header in JSON, and the numbers.
function arrays({ buffer }) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(buffer.slice(8, start)));
  const types = { F32: Float32Array, I64: BigInt64Array };
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(header)) {
    if (name !== '__metadata__') found[name] = { shape, data: new types[dtype](buffer.slice(start + begin, start + end)) };
  }
  return found;
}

// The bundles, and what is expected of each.
export async function* cases() {
  for (const name of await json('names.json')) {
    const values = arrays(await read(`${name}/expected.safetensors`));
    const { decoder } = (await json(`${name}/bundle/genai_config.json`)).model;
    yield { name, values, decoder, ...(await json(`${name}/expected.json`)) };
  }
}

// Reports a check of a bundle: as failed if anything is thrown, else as passed.
export async function checking({ name: bundle }, check, body) {
  let failed = null;
  try {
    await body();
  } catch (error) {
    failed = `${error?.stack ?? error}`.replace(/\s+/g, ' ').slice(0, 500);
  }
  const line = JSON.stringify({ bundle, check, failed });
  if (inNode) console.log(line);
  else window.report(line);
}

export function equal(found, expected, name) {
  const [one, other] = [found, expected].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${name}: ${one}, not ${other}`);
}

// Asserts that two computations gave the same but for rounding, relative to the largest number.
export function close(found, expected, name) {
  equal([...found.dims], expected.shape, `the shape of ${name}`);
  let [size, error] = [0, 0];
  expected.data.forEach((value, place) => {
    if (Number.isFinite(value)) {
      size = Math.max(size, Math.abs(value));
      const difference = Math.abs(found.data[place] - value);
      error = Number.isNaN(difference) ? Infinity : Math.max(error, difference);
    } else if (found.data[place] !== value) {
      throw new Error(`${name} is ${found.data[place]} where it must be ${value}`);
    }
  });
  const allowed = 300 * 2 ** -23 * size; // as tests/yardstick.py
  if (error > allowed) throw new Error(`${name} differs by ${error} where ${allowed} is allowed`);
}

if (!inNode) window.onerror = (message) => window.done(`${message}`);

// Runs the checks of a script on every bundle.
export async function main(check) {
  for await (const one of cases()) await check(one);
  if (!inNode) window.done(null);
}
