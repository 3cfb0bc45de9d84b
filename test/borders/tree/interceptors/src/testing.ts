// room: interceptors/src/{index,client,engine,internal,testing,tls} are doors
import './testing/kit.js';
import './internal.js'; // refused: noRestrictedImports
import 'jose'; // refused: noRestrictedImports
