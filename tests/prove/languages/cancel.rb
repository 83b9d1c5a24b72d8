# Cancels a pass: ruby cancel.rb ADDRESS ID
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'idpass/v1/id_pass_service_services_pb'

address, id = ARGV
stub = Idpass::V1::IdPassService::Stub.new(address, :this_channel_is_insecure)
request = Idpass::V1::CancelRequest.new(
  id: id, request_id: "cancel-#{id}", reason: :CANCEL_REASON_ABANDONED
)
begin
  answer = stub.cancel_id_pass(request, deadline: Time.now + 5)
  puts "cancelled, fee refunded: #{answer.fee_refunded}"
rescue GRPC::BadStatus => e
  infos = e.to_rpc_status.details.filter_map { |detail| detail.unpack(Google::Rpc::ErrorInfo) }
  puts "refused: #{infos.first.reason}"
end
