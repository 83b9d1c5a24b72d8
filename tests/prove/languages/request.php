<?php
// Prints a request as protobuf writes it, in base64: php request.php ID
spl_autoload_register(function (string $class): void {
    $path = str_replace('\\', '/', $class) . '.php';
    if (stream_resolve_include_path($path)) {
        require $path;
    }
});

$request = new Idpass\V1\CancelRequest([
    'id' => $argv[1],
    'request_id' => "cancel-$argv[1]",
    'reason' => Idpass\V1\CancelReason::CANCEL_REASON_ABANDONED,
]);
echo base64_encode($request->serializeToString()), "\n";
