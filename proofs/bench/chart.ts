/** The chart of the documentation: the processor time of a call with each arm, from the figures of a run. */

const WIDTH = 760;
const BAR_HEIGHT = 20;
const BAR_GAP = 10;
const LABEL_WIDTH = 210;
const VALUE_WIDTH = 130;
const MARGIN = 16;
const HEAD_HEIGHT = 44;

/** Labels in drawing order; an arm that was not measured is omitted. */
const BARS: readonly (readonly [arm: string, label: string])[] = [
  ['bare', 'no authentication'],
  ['guard', 'Portcullis'],
  ['naive_cache', 'Map of whole tokens'],
  ['fast_jwt_cache', 'fast-jwt, its cache'],
  ['fast_jwt', 'fast-jwt'],
  ['jsonwebtoken_keyobject', 'jsonwebtoken, KeyObject'],
  ['jose', 'jose on each call'],
  ['jose_redis', 'jose and a look-up in Redis'],
  ['introspection', 'introspection by RPC'],
  ['jsonwebtoken', 'jsonwebtoken, text secret'],
];

/** The figures of section `peers` that the chart needs. */
export type ChartFigures = Readonly<
  Record<string, { readonly cpu_us: number; readonly cpu_ratio: number } | undefined>
>;

/** Draws the chart as SVG that follows the reader's light or dark color scheme. */
export function chartOf(figures: ChartFigures, caption: string): string {
  const bars = BARS.flatMap(([arm, label]) => {
    const own = figures[arm];
    return own === undefined ? [] : [{ label, ratio: own.cpu_ratio, microseconds: own.cpu_us, arm }];
  });
  const longest = Math.max(...bars.map(({ ratio }) => ratio));
  const room = WIDTH - LABEL_WIDTH - VALUE_WIDTH - 2 * MARGIN;
  const height = HEAD_HEIGHT + bars.length * (BAR_HEIGHT + BAR_GAP) + 2 * MARGIN + 14;
  const rows = bars.map(({ label, ratio, microseconds, arm }, index) => {
    const y = HEAD_HEIGHT + MARGIN + index * (BAR_HEIGHT + BAR_GAP);
    const length = Math.max(1, (ratio / longest) * room).toFixed(1);
    const middle = y + BAR_HEIGHT * 0.72;
    const start = MARGIN + LABEL_WIDTH;
    return [
      `<text x="${start - 10}" y="${middle}" text-anchor="end">${label}</text>`,
      `<rect class="${arm === 'guard' ? 'own' : 'other'}" x="${start}" y="${y}" width="${length}" height="${BAR_HEIGHT}" rx="2"/>`,
      `<text x="${start + Number(length) + 8}" y="${middle}">${ratio.toFixed(2)} × · ${microseconds.toFixed(0)} µs</text>`,
    ].join('\n');
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>Processor time of the server for one call</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.head { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; fill: #656d76; }
.own { fill: #1a7f37; } .other { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #8d96a0; } .own { fill: #3fb950; } .other { fill: #6e7681; }
}
</style>
<text class="head" x="${MARGIN}" y="${MARGIN + 14}">Processor time of the server for one call whose token it has seen before</text>
${rows.join('\n')}
<text class="small" x="${MARGIN}" y="${height - MARGIN}">${caption}</text>
</svg>
`;
}
