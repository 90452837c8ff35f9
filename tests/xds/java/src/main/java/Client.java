import com.google.protobuf.StringValue;
import io.grpc.CallOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.util.concurrent.TimeUnit;

/** A client of grpc-java's xDS: calls each target again and again, and prints who answers. */
public final class Client {
  private static final long PAUSE_MS = 2;
  private static final long PATIENCE_S = 20;

  private static final MethodDescriptor<StringValue, StringValue> AM =
      MethodDescriptor.<StringValue, StringValue>newBuilder()
          .setType(MethodDescriptor.MethodType.UNARY)
          .setFullMethodName("test.Who/Am")
          .setRequestMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
          .setResponseMarshaller(ProtoUtils.marshaller(StringValue.getDefaultInstance()))
          .build();

  private static void callForEver(String target) {
    ManagedChannel channel =
        Grpc.newChannelBuilder(target, InsecureChannelCredentials.create()).build();
    try {
      while (true) {
        System.out.print(target + " " + call(channel) + "\n");
        System.out.flush();
        Thread.sleep(PAUSE_MS);
      }
    } catch (InterruptedException end) {
      channel.shutdownNow();
    }
  }

  private static String call(ManagedChannel channel) {
    CallOptions options =
        CallOptions.DEFAULT.withWaitForReady().withDeadlineAfter(PATIENCE_S, TimeUnit.SECONDS);
    try {
      return ClientCalls.blockingUnaryCall(channel, AM, options, StringValue.getDefaultInstance())
          .getValue();
    } catch (StatusRuntimeException error) {
      return "!" + error.getStatus().getCode();
    }
  }

  /** Each argument is a target. */
  public static void main(String[] targets) {
    for (String target : targets) {
      new Thread(() -> callForEver(target)).start();
    }
  }
}
