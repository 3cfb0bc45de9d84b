// room: auth/console/browser
import '../html.js'; // refused: noRestrictedImports
import 'node:fs'; // refused: noRestrictedImports
