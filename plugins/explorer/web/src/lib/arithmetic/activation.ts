import { formatAddress } from "../address";
import { ACTIVATIONS, ROUNDING, SMALLEST, step, type Activation, type Rule } from "./types";
import type { Values } from "./values";

/** A neuron after the activation function; times the factor of its gate, where the MLP has one. */
export async function post(values: Values, layer: number, position: number, neuron: number): Promise<Rule | null> {
  const name = values.model.cfg.act_fn as Activation;
  if (!ACTIVATIONS.includes(name)) return null;
  const mlp = `blocks.${layer}.mlp`;
  const before = formatAddress(`${mlp}.hook_pre`, position, neuron);
  const gate = values.model.cfg.gated_mlp ? formatAddress(`${mlp}.hook_pre_linear`, position, neuron) : null;
  await values.load(before, gate);
  // Where the function is small, it is a difference of numbers as large as its input.
  const size = Math.abs(values.number(before));
  const active = step(name, [values.quantity(before)], { name: gate ? "activated" : "result" }, size);
  const gated = gate === null ? null : step("multiply", [active.result, values.quantity(gate)], { name: "result" }, size * Math.abs(values.number(gate)));
  const found = gated ?? active;
  return {
    kind: "activation",
    formula: gate === null ? `post = ${name}(pre)` : `post = ${name}(pre) · pre_linear`,
    lines: gated ? [active, gated] : [active],
    pictures: [{ kind: "activation", activation: name, at: values.number(before) }],
    total: found.result.value,
    bound: 16 * ROUNDING * found.size + SMALLEST,
  };
}
