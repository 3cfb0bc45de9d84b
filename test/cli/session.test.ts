/** The connection of a command to auth. */

import { expect } from 'chai';
import { AuthServiceClient } from '../../cli/gen/auth/v1/auth_service.js';
import { UserServiceClient } from '../../cli/gen/auth/v1/user_service.js';
import { connect } from '../../cli/src/session.js';

describe('the connection of a command', () => {
  it('has one client for each service, because auth limits the connections of an address', async () => {
    const connection = await connect({ address: '127.0.0.1:1' });
    const client = connection.client(AuthServiceClient);
    expect(connection.client(AuthServiceClient)).to.equal(client);
    expect(connection.client(UserServiceClient)).not.to.equal(client);
    connection.close();
  });
});
