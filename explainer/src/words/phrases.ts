/** Sentences that come with the file, in English, and what they are in Chinese; unknown ones stay. */
const PHRASES: [RegExp, string][] = [
  [/^(.+) of width (\d+)$/, '$1 个，宽 $2'],
  [/^([\d,]+) tokens$/, '$1 个词元'],
  [/^(\d+) [x×] (\d+) pixels$/, '$1 × $2 像素'],
  [/^Each of ([\d,]+) positions has a learned vector, which is added to the token\.$/, '$1 个位置各有一个学来的向量，加到词元上。'],
  [/^Each of ([\d,]+) patches has a learned vector, which is added to it\.$/, '$1 个方块各有一个学来的向量，加到方块上。'],
  [/^Each position has a fixed vector of sines and cosines, which is added to the token\.$/, '每个位置有一个由正弦和余弦组成的固定向量，加到词元上。'],
  [/^Each patch has a fixed vector of sines and cosines of .+, which is added to it\.$/, '每个方块有一个由正弦和余弦组成的固定向量，加到方块上。'],
  [/^Queries and keys are rotated, in pairs of features, .+; the base of their wavelengths is (.+)\.$/, '查询和键的特征两两成对，旋转的角度随位置增大；波长的底数是 $1。'],
  [/^Each head adds a learned number to its scores, by the distance of key and query\.$/, '每个头按照键与查询的距离，在分数上加一个学来的数。'],
  [/^The model is told nothing about positions\.$/, '模型得不到任何位置信息。'],
  [/^The target was written by the model\.$/, '译文是模型自己写的。'],
  [/^The prompt has ([\d,]+) tokens and was cut to its last ([\d,]+)\.$/, '提示有 $1 个词元，只保留了最后 $2 个。'],
  [/^The prompt has ([\d,]+) tokens and was cut to its first ([\d,]+)\.$/, '提示有 $1 个词元，只保留了最前 $2 个。'],
  [/^The text was cut to its first ([\d,]+) tokens\.$/, '文本只保留了最前 $1 个词元。'],
  [/^The prompt has no (.+): every token is predicted\.$/, '提示里没有 $1：每个词元都被预测。'],
];

export function inChinese(text: string): string {
  const known = PHRASES.find(([pattern]) => pattern.test(text));
  return known ? text.replace(known[0], known[1]) : text;
}
