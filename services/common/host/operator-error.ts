/** A fault that an operator can mend: the message says what is wrong, and a stack trace would only hide it. */
export class OperatorError extends Error {}
