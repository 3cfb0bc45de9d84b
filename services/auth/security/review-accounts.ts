/** The checks of clients, other issuers, administrators and passwords. */

import { ACCESS_TOKEN_SECONDS_GOOD, found, type ReviewFacts, type ReviewFinding } from './review-findings.js';
import { checkKey } from './review-keys.js';

export function checkClients({ clients }: ReviewFacts): readonly ReviewFinding[] {
  return clients.flatMap(({ clientId, proof }) => {
    if (proof === 'none') return [];
    if (proof !== 'secret') {
      return checkKey(clientId, `the key of client ${clientId}`, proof, 'give the client another key');
    }
    return found(true, 'CLIENT_SECRET', 'weak', {
      subject: clientId,
      fact: `client ${clientId} authenticates with a secret, which it has to send`,
      remedy: 'give the client a key instead (private_key_jwt)',
    });
  });
}

export function checkIssuers({ settings: { issuers } }: ReviewFacts): readonly ReviewFinding[] {
  return issuers.flatMap(({ issuer, isSymmetric, algorithms, lifetimeMaxSeconds }) => [
    ...found(isSymmetric, 'ISSUER_SYMMETRIC', 'weak', {
      subject: issuer,
      fact: `tokens of ${issuer} are verified with the secret that signs them: every verifier could also sign`,
      remedy: 'let that issuer sign with asymmetric keys, and configure its jwks_url instead',
    }),
    ...found(algorithms.includes('RS256'), 'ALGORITHM_WEAK', 'note', {
      subject: issuer,
      fact: `tokens of ${issuer} may be signed with RS256, whose padding (PKCS #1 v1.5) FAPI 2.0 no longer admits`,
      remedy: 'remove RS256 from its algorithms once that issuer signs with another one',
    }),
    ...found(lifetimeMaxSeconds > ACCESS_TOKEN_SECONDS_GOOD, 'ACCESS_TOKEN_LONG', 'note', {
      subject: issuer,
      fact: `tokens of ${issuer} may live for up to ${lifetimeMaxSeconds} seconds`,
      remedy: `set its lifetime_max_seconds to ${ACCESS_TOKEN_SECONDS_GOOD} if its tokens are that short`,
    }),
  ]);
}

export function checkAdmins({ admins }: ReviewFacts): readonly ReviewFinding[] {
  const [only = '', second] = admins;
  return [
    ...found(admins.length === 0, 'ADMIN_NONE', 'critical', {
      subject: 'users',
      fact: 'no enabled user has the role admin: users, clients and keys cannot be changed',
      remedy: 'run the command recover-admin of auth for a user who is to be the administrator',
    }),
    ...found(admins.length > 0 && second === undefined, 'ADMIN_SINGLE', 'note', {
      subject: only,
      fact: `${only} is the only administrator: if this account is lost, only the command recover-admin is left`,
      remedy: 'give the role admin to a second user',
    }),
  ];
}

export function checkPasswords({
  users,
  settings: { bootstrapUsers },
}: ReviewFacts): readonly ReviewFinding[] {
  return users.flatMap(({ username, isPrivileged, hasFirstPassword, isGuessable }) => [
    ...found(isGuessable, 'PASSWORD_GUESSABLE', 'critical', {
      subject: username,
      fact: `${username} has one of the passwords that attackers try first`,
      remedy: 'let the user change it now, and check the sessions of the user',
    }),
    ...found(
      hasFirstPassword && bootstrapUsers.includes(username),
      'PASSWORD_FROM_BOOTSTRAP',
      isPrivileged ? 'weak' : 'note',
      {
        subject: username,
        fact: `${username} still has the password from the bootstrap file`,
        remedy: 'let the user change it',
      },
    ),
  ]);
}
