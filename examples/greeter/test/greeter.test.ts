import { strict as assert } from 'node:assert';
import { createGuard } from '@portcullis/guard';

describe('placeholder', () => {
  it('imports', () => {
    assert.equal(typeof createGuard, 'function');
  });
});
