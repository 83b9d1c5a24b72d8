// Cancels a pass: cancel ADDRESS ID
#include <chrono>
#include <iostream>
#include <string>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "idpass/v1/id_pass_service.grpc.pb.h"

int main(int, char** arguments) {
  const std::string address = arguments[1], id = arguments[2];
  auto stub = idpass::v1::IdPassService::NewStub(
      grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  idpass::v1::CancelRequest request;
  request.set_id(id);
  request.set_request_id("cancel-" + id);
  request.set_reason(idpass::v1::CANCEL_REASON_ABANDONED);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  idpass::v1::CancelResponse answer;
  const grpc::Status status = stub->CancelIdPass(&context, request, &answer);
  if (status.ok()) {
    std::cout << "cancelled, fee refunded: " << std::boolalpha << answer.fee_refunded() << std::endl;
    return 0;
  }
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  details.ParseFromString(status.error_details());
  for (const auto& detail : details.details()) {
    if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info)) {
      std::cout << "refused: " << info.reason() << std::endl;
    }
  }
  return 0;
}
