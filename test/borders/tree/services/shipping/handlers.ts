// room: domain code
// A new service has no border of its own yet, so its handlers are held to the domain's.
import '../../proto/gen/shipping/v1/shipping_service.js'; // refused: noRestrictedImports
import '@grpc/grpc-js'; // refused: noRestrictedImports
