// Asks a VM of shop/web for its health, whichever is next.
const grpc = require('@grpc/grpc-js');
const { service } = require('grpc-health-check');
require('@grpc/grpc-js-xds').register(); // knows targets that begin with xds:

const Health = grpc.makeClientConstructor(service, 'Health');
const client = new Health('xds:///web.shop:80', grpc.credentials.createInsecure());
client.check({ service: '' }, (error, response) => {
  console.log(error ?? response);
  client.close();
});
