// What temperature, top-k and top-p make of a distribution, in the order in which the sampler applies them.

/**
 * Logits, the largest first -> the probabilities of as many of the first of them as can still be drawn. The nucleus is
 * the smallest set of the likeliest whose probabilities reach top_p; a temperature of 0 is greedy.
 */
export function shaped(logits, { temperature, top_k, top_p }) {
  if (temperature === 0) return Float64Array.of(1);
  const kept = top_k > 0 ? Math.min(top_k, logits.length) : logits.length;
  const weights = new Float64Array(kept);
  for (let i = 0; i < kept; i += 1) weights[i] = Math.exp((logits[i] - logits[0]) / temperature);
  const count = top_p > 0 && top_p < 1 ? nucleus(weights, top_p) : kept;
  return normal(weights.subarray(0, count));
}

function nucleus(weights, p) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let reached = 0;
  for (let i = 0; i < weights.length; i += 1) {
    reached += weights[i] / total;
    if (reached >= p) return i + 1;
  }
  return weights.length;
}

function normal(weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
