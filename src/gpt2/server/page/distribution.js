// Applies temperature, top-k and top-p to a distribution, in the same order as the sampler.

/**
 * Return the probabilities of the tokens that can still be drawn, for logits in descending order.
 * top_p keeps the smallest set of most likely tokens whose probabilities reach top_p; a temperature of 0 is greedy.
 */
export function filterProbabilities(logits, { temperature, top_k, top_p }) {
  if (temperature === 0) return Float64Array.of(1);
  const topKCount = top_k > 0 ? Math.min(top_k, logits.length) : logits.length;
  const weights = new Float64Array(topKCount);
  for (let i = 0; i < topKCount; i += 1) weights[i] = Math.exp((logits[i] - logits[0]) / temperature);
  const count = top_p > 0 && top_p < 1 ? countTopP(weights, top_p) : topKCount;
  return normalize(weights.subarray(0, count));
}

function countTopP(weights, topP) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let cumulative = 0;
  for (let i = 0; i < weights.length; i += 1) {
    cumulative += weights[i] / total;
    if (cumulative >= topP) return i + 1;
  }
  return weights.length;
}

function normalize(weights) {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
