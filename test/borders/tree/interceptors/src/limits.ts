// room: interceptors/src/{errors,clock,limits,log}
import './errors.js'; // refused: noRestrictedImports
import './token/claims.js'; // refused: noRestrictedImports

export const CLOCK_SKEW_SECONDS = 5;
