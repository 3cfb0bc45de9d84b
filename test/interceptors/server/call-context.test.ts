/** The call of the running handler: in which steps of a call it is known. */

import { Metadata } from '@grpc/grpc-js';
import { expect } from 'chai';
import { currentCall, withCallContext } from '../../../interceptors/src/server/call-context.js';

describe('the context of a call', () => {
  it('is known in each step after the metadata, and steps before them run without', () => {
    const steps: string[] = [];
    const metadata = new Metadata();
    const record = (step: string): void => {
      let known = false;
      try {
        known = currentCall().metadata === metadata;
      } catch (error) {
        expect(error).to.be.instanceOf(TypeError);
      }
      steps.push(`${step} ${known ? 'with its call' : 'without a call'}`);
    };
    const listener = withCallContext({
      onReceiveMetadata: () => record('metadata'),
      onReceiveMessage: () => record('message'),
      onReceiveHalfClose: () => record('half-close'),
      onCancel: () => steps.push('cancelled'),
    });
    listener.onReceiveMessage('early');
    listener.onReceiveMetadata(metadata);
    listener.onReceiveMessage('a message');
    listener.onReceiveHalfClose();
    listener.onCancel();
    expect(steps).to.deep.equal([
      'message without a call',
      'metadata with its call',
      'message with its call',
      'half-close with its call',
      'cancelled',
    ]);
  });
});
