/** The error reasons of auth, each with its status. */

import { declareErrors } from '@portcullis/guard/errors';
import { COMMON_REASONS } from '../common/errors.js';

export const AuthError = declareErrors({
  ...COMMON_REASONS,
  LOGIN_FAILED: 'UNAUTHENTICATED',
  REFRESH_INVALID: 'UNAUTHENTICATED',
  CLIENT_AUTHENTICATION_FAILED: 'UNAUTHENTICATED',
  CERTIFICATE_REQUIRED: 'UNAUTHENTICATED',
  AUDIENCE_NOT_ALLOWED: 'PERMISSION_DENIED',
  LOG_CHANGED: 'FAILED_PRECONDITION',
  SUBJECT_TOKEN_INVALID: 'INVALID_ARGUMENT',
});
