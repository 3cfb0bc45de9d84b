/** What is said of a policy file that cannot be read. */

import { expect } from 'chai';
import { parsePolicy } from '../../cli/src/policy-text.js';

describe('a policy file', () => {
  const faultsOf = (text: string): readonly string[] => {
    try {
      parsePolicy(text, 'policy.yaml');
      return [];
    } catch (error) {
      return String(error instanceof Error ? error.message : error).split('\n');
    }
  };

  it('has all its faults named together, with the names that were probably meant', () => {
    const text = [
      'service: []',
      'services:',
      '  - audience: shop',
      '    scope: [shop.buy]',
      '  - scopes: shop.buy',
      'roles:',
      '  - {role: 1, scopes: [a]}',
    ].join('\n');
    expect(faultsOf(text)).to.have.members([
      'policy.yaml: service is no part of a policy: did you mean services?',
      'policy.yaml: services.0.scope is no member of a service: did you mean scopes?',
      'policy.yaml: services.1.audience is missing',
      'policy.yaml: services.1.scopes must be a list, got text',
      'policy.yaml: roles.0.role must be text, got a number',
    ]);
  });

  it('has the line named where it is not YAML, and nothing of it repeated', () => {
    expect(faultsOf('roles: []\nroles: [hunter2]\n')).to.deep.equal([
      'policy.yaml has a fault in line 2: a name stands there twice',
    ]);
  });
});
