// A client of grpc-js' xDS: calls each target again and again, and prints who answers.
'use strict';

const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const PAUSE_MS = 2;
const PATIENCE_MS = 20_000;

// A StringValue: a tag and a length come before the text.
const method = {
  path: '/test.Who/Am',
  requestStream: false,
  responseStream: false,
  requestSerialize: () => Buffer.alloc(0),
  requestDeserialize: String,
  responseSerialize: Buffer.from,
  responseDeserialize: (bytes) => bytes.subarray(2).toString(),
};
const Who = grpc.makeGenericClientConstructor({ am: method }, 'test.Who');

function callForEver(client, target) {
  const deadline = Date.now() + PATIENCE_MS;
  const metadata = new grpc.Metadata({ waitForReady: true });
  client.am(null, metadata, { deadline }, (error, answer) => {
    process.stdout.write(`${target} ${error ? '!' + grpc.status[error.code] : answer}\n`);
    setTimeout(callForEver, PAUSE_MS, client, target);
  });
}

for (const target of process.argv.slice(2)) {
  callForEver(new Who(target, grpc.credentials.createInsecure()), target);
}
