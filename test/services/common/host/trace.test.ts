/** The trace context of a caller. */

import { expect } from 'chai';
import { parseTraceparent } from '../../../../services/common/host/trace.js';

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const PARENT_ID = 'b7ad6b7169203331';

describe('trace context', () => {
  it('is read from a traceparent header of this or a later version', () => {
    const expected = { traceId: TRACE_ID, parentId: PARENT_ID };
    expect(parseTraceparent(`00-${TRACE_ID}-${PARENT_ID}-01`)).to.deep.equal(expected);
    expect(parseTraceparent(`01-${TRACE_ID}-${PARENT_ID}-00-later`)).to.deep.equal(expected);
  });

  it('is ignored when it is not what the specification allows', () => {
    const bad = [
      undefined,
      Buffer.from('x'),
      '',
      `ff-${TRACE_ID}-${PARENT_ID}-01`,
      `00-${TRACE_ID}-${PARENT_ID}-01-more`,
      `00-${TRACE_ID.toUpperCase()}-${PARENT_ID}-01`,
      `00-${'0'.repeat(32)}-${PARENT_ID}-01`,
      `00-${TRACE_ID}-${'0'.repeat(16)}-01`,
      `00-${TRACE_ID}-${PARENT_ID}`,
      `01-${TRACE_ID}-${PARENT_ID}-00-${'x'.repeat(512)}`,
    ];
    for (const header of bad) expect(parseTraceparent(header), String(header)).to.equal(undefined);
  });
});
