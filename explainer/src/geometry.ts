/** The columns that the flow and the rail share: tokens, embedding, one column a layer, what comes out. */
export interface Columns {
  left: number;
  embedding: number;
  right: number;
  layers: number;
  /** Width of the column of one layer. */
  width: number;
  total: number;
  narrow: boolean;
}

/** `longest` is the number of letters of the longest label. */
export function columns(space: number, layers: number, longest: number): Columns {
  const narrow = space < 560;
  const left = Math.min(narrow ? 58 : 112, Math.max(narrow ? 34 : 60, 14 + 8 * longest));
  const embedding = narrow ? 26 : 60;
  const right = narrow ? 46 : 92;
  const width = Math.min(230, Math.max(15, (space - left - embedding - right) / Math.max(1, layers)));
  return { left, embedding, right, layers, width, total: left + embedding + right + width * layers, narrow };
}

export function edge(columns: Columns, layer: number): number {
  return columns.left + columns.embedding + layer * columns.width;
}

/** The layer under a point, or null. */
export function layerAt(columns: Columns, x: number): number | null {
  const layer = Math.floor((x - columns.left - columns.embedding) / columns.width);
  return layer >= 0 && layer < columns.layers ? layer : null;
}
