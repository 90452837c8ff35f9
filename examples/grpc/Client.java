import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;

/** Asks a VM of shop/web for its health, whichever is next. */
public final class Client {
  public static void main(String[] arguments) {
    ManagedChannel channel =
        Grpc.newChannelBuilder("xds:///web.shop:80", InsecureChannelCredentials.create()).build();
    HealthCheckRequest request = HealthCheckRequest.getDefaultInstance();
    System.out.println(HealthGrpc.newBlockingStub(channel).withWaitForReady().check(request));
    channel.shutdownNow();
  }
}
