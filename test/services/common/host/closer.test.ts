/** The closer: order, failures, and late additions. */

import { expect } from 'chai';
import { createCloser } from '../../../../services/common/host/closer.js';

describe('closer', () => {
  let closed: string[];
  let failures: unknown[];

  beforeEach(() => {
    closed = [];
    failures = [];
  });

  function create() {
    return createCloser({ error: (fields: unknown) => void failures.push(fields) });
  }
  function note(name: string): () => Promise<void> {
    return async () => {
      await Promise.resolve();
      closed.push(name);
    };
  }

  it('closes resources one after the other, the last added first', async () => {
    const closer = create();
    for (const name of ['database', 'guard', 'sweeper']) closer.add(name, note(name));
    await closer.closeAll();
    expect(closed).to.deep.equal(['sweeper', 'guard', 'database']);
    expect(failures).to.be.empty;
  });

  it('logs a failure with the name of its resource, and closes the rest', async () => {
    const closer = create();
    const rejected = new Error('rejected');
    const thrown = new Error('thrown');
    closer.add('first', note('first'));
    closer.add('second', () => Promise.reject(rejected));
    closer.add('third', () => {
      throw thrown;
    });
    await closer.closeAll();
    expect(closed).to.deep.equal(['first']);
    expect(failures).to.deep.equal([
      { err: thrown, resource: 'third' },
      { err: rejected, resource: 'second' },
    ]);
  });

  it('closes everything once, however often it is called', async () => {
    const closer = create();
    closer.add('one', note('one'));
    await Promise.all([closer.closeAll(), closer.closeAll()]);
    await closer.closeAll();
    expect(closed).to.deep.equal(['one']);
  });

  it('closes resources that are added while it closes, and later ones at once', async () => {
    const closer = create();
    closer.add('one', async () => {
      closer.add('meanwhile', note('meanwhile'));
    });
    await closer.closeAll();
    expect(closed).to.deep.equal(['meanwhile']);
    closer.add('late', note('late'));
    await closer.closeAll();
    await new Promise((resolve) => setImmediate(resolve));
    expect(closed).to.deep.equal(['meanwhile', 'late']);
  });
});
