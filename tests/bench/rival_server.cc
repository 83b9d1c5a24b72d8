// The rival: a C++ gRPC server with one transaction and one commit per call.
//
// It writes the same columns of the same tables, as durably (WAL, synchronous=FULL), and keeps the
// rules of CancelIdPass: the refund is decided from the status read inside the transaction, a known
// request_id gets its first answer again, a disabled account changes nothing. It is tuned as well
// as its kind allows:
//
// * one connection, since SQLite has one writer at a time anyway, without a lock of SQLite's own;
//   its statements are prepared once;
// * gRPC's callback API, whose few threads read a request, commit it behind a lock and answer.
//   Measured beside it, a thread of its own for commits and gRPC's thread pool, with its own numbers
//   of threads and with smaller ones, took a third more of the processor: every call that changes
//   threads wakes one up;
// * the request is checked and its digest made outside the lock;
// * it writes no log, counts nothing, and its errors have no details.
//
// usage: rival_server DATABASE CHECKPOINT_PAGES CACHE_KIB

#include <grpcpp/grpcpp.h>
#include <openssl/sha.h>
#include <signal.h>
#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "idpass/v1/id_pass_service.grpc.pb.h"

namespace pb = idpass::v1;
using grpc::Status;
using grpc::StatusCode;

namespace {

constexpr char kHex[] = "0123456789abcdef";

constexpr std::pair<std::string_view, pb::IdPassStatus> kStatuses[] = {
    {"new", pb::ID_PASS_STATUS_NEW},
    {"opened", pb::ID_PASS_STATUS_OPENED},
    {"in_progress", pb::ID_PASS_STATUS_IN_PROGRESS},
    {"complete", pb::ID_PASS_STATUS_COMPLETE},
    {"failed", pb::ID_PASS_STATUS_FAILED},
    {"expired", pb::ID_PASS_STATUS_EXPIRED},
    {"cancelled", pb::ID_PASS_STATUS_CANCELLED},
};

pb::IdPassStatus StatusOf(std::string_view word) {
  for (const auto& [each, status] : kStatuses) {
    if (each == word) return status;
  }
  throw std::runtime_error("unknown status " + std::string(word));
}

const char* WordOf(pb::CancelReason reason) {
  switch (reason) {
    case pb::CANCEL_REASON_ABANDONED: return "abandoned";
    case pb::CANCEL_REASON_SUPERSEDED: return "superseded";
    case pb::CANCEL_REASON_DUPLICATE: return "duplicate";
    case pb::CANCEL_REASON_REQUESTED_BY_APPLICANT: return "requested_by_applicant";
    case pb::CANCEL_REASON_FRAUD_SUSPECTED: return "fraud_suspected";
    case pb::CANCEL_REASON_OTHER: return "other";
    default: return "";
  }
}

int64_t NowUs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

template <size_t n>
std::string Hex(const std::array<uint8_t, n>& bytes) {
  std::string hex;
  hex.reserve(2 * n);
  for (const uint8_t byte : bytes) {
    hex += kHex[byte >> 4];
    hex += kHex[byte & 15];
  }
  return hex;
}

// A UUIDv7.
std::string NewReference(int64_t now_us) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::array<uint8_t, 16> bytes;
  const uint64_t high = random(), low = random();
  for (int i = 0; i < 6; ++i) bytes[i] = static_cast<uint64_t>(now_us / 1000) >> (40 - 8 * i);
  for (int i = 6; i < 8; ++i) bytes[i] = high >> (8 * i);
  for (int i = 8; i < 16; ++i) bytes[i] = low >> (8 * (i - 8));
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  std::string text = Hex(bytes);
  for (const int at : {20, 16, 12, 8}) text.insert(at, 1, '-');
  return text;
}

// A UUID in lower case, or nothing.
std::optional<std::string> Uuid(const std::string& text) {
  if (text.size() != 36) return std::nullopt;
  std::string lower = text;
  for (size_t i = 0; i < lower.size(); ++i) {
    if (lower[i] >= 'A' && lower[i] <= 'F') lower[i] += 'a' - 'A';
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (lower[i] >= '0' && lower[i] <= '9') || (lower[i] >= 'a' && lower[i] <= 'f');
    if (dash ? lower[i] != '-' : !hex) return std::nullopt;
  }
  return lower;
}

// What distinguishes two requests with the same request_id.
std::string Digest(const std::string& id, const pb::CancelRequest& request) {
  const std::string content = id + '\0' + std::to_string(request.reason()) + '\0' +
                              std::to_string(request.expected_status()) + '\0' +
                              (request.require_refund() ? '1' : '0') + request.note();
  std::array<uint8_t, SHA256_DIGEST_LENGTH> whole;
  SHA256(reinterpret_cast<const uint8_t*>(content.data()), content.size(), whole.data());
  std::array<uint8_t, 16> digest;
  std::copy_n(whole.begin(), digest.size(), digest.begin());
  return Hex(digest);
}

class Statement {
 public:
  Statement(sqlite3* db, const char* sql) : db_(db) {
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt_, nullptr) != SQLITE_OK) {
      throw std::runtime_error(std::string(sql) + ": " + sqlite3_errmsg(db));
    }
  }
  ~Statement() { sqlite3_finalize(stmt_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Binds what has to live until the next Run or Reset. Returns whether there is a row.
  template <typename... Values>
  bool Run(const Values&... values) {
    sqlite3_reset(stmt_);
    int index = 0;
    (Bind(++index, values), ...);
    const int result = sqlite3_step(stmt_);
    if (result != SQLITE_ROW && result != SQLITE_DONE) {
      const std::string why = sqlite3_errmsg(db_);
      sqlite3_reset(stmt_);
      throw std::runtime_error(why);
    }
    return result == SQLITE_ROW;
  }
  void Reset() { sqlite3_reset(stmt_); }

  std::string_view Text(int column) const {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(stmt_, column));
    return text == nullptr ? std::string_view() : std::string_view(text, sqlite3_column_bytes(stmt_, column));
  }
  int64_t Integer(int column) const { return sqlite3_column_int64(stmt_, column); }
  bool IsNull(int column) const { return sqlite3_column_type(stmt_, column) == SQLITE_NULL; }

 private:
  void Bind(int index, int64_t value) { sqlite3_bind_int64(stmt_, index, value); }
  void Bind(int index, std::string_view value) {
    sqlite3_bind_text(stmt_, index, value.data(), static_cast<int>(value.size()), SQLITE_STATIC);
  }
  void Bind(int index, const std::string& value) { Bind(index, std::string_view(value)); }
  void Bind(int index, const char* value) { Bind(index, std::string_view(value)); }
  template <typename Value>
  void Bind(int index, const std::optional<Value>& value) {
    value ? Bind(index, *value) : static_cast<void>(sqlite3_bind_null(stmt_, index));
  }

  sqlite3* db_;
  sqlite3_stmt* stmt_ = nullptr;
};

sqlite3* Open(const char* path, const char* checkpoint_pages, const char* cache_kib) {
  sqlite3* db = nullptr;
  if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr) !=
      SQLITE_OK) {
    throw std::runtime_error(std::string(path) + ": " + sqlite3_errmsg(db));
  }
  sqlite3_busy_timeout(db, 2000);
  const std::string pragmas = std::string("PRAGMA synchronous = FULL; PRAGMA cache_size = -") +
                              cache_kib + "; PRAGMA wal_autocheckpoint = " + checkpoint_pages;
  if (sqlite3_exec(db, pragmas.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    throw std::runtime_error(sqlite3_errmsg(db));
  }
  return db;
}

// Used by one thread at a time.
class Store {
 public:
  explicit Store(sqlite3* db) : db_(db) {}

  Status Cancel(const std::string& id, const std::string& digest, const pb::CancelRequest& request,
                pb::CancelResponse* response) {
    try {
      begin_.Run();
      const Status status = Decide(id, digest, request, response);
      status.ok() && !response->replayed() && !request.validate_only() ? commit_.Run()
                                                                       : rollback_.Run();
      return status;
    } catch (const std::exception& error) {
      if (!sqlite3_get_autocommit(db_)) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
      std::fprintf(stderr, "%s\n", error.what());
      return Status(StatusCode::UNAVAILABLE, "the database cannot be written");
    }
  }

 private:
  Status Decide(const std::string& id, const std::string& digest, const pb::CancelRequest& request,
                pb::CancelResponse* response) {
    if (!pass_.Run(id)) return Status(StatusCode::NOT_FOUND, "there is no pass " + id);
    const auto reset_pass = Defer(pass_);
    const std::optional<std::string_view> request_id =
        request.request_id().empty() ? std::nullopt
                                     : std::optional<std::string_view>(request.request_id());
    if (request_id && receipt_.Run(*request_id)) {
      const auto reset_receipt = Defer(receipt_);
      return Replay(digest, response);
    }
    const std::string_view status = pass_.Text(0);
    const int64_t now_us = NowUs();
    const bool ended = !pass_.IsNull(4) || pass_.Integer(3) <= now_us;
    if (ended) {
      return Status(StatusCode::FAILED_PRECONDITION, "the pass is " + std::string(status));
    }
    const pb::IdPassStatus previous = StatusOf(status);
    if (request.expected_status() != 0 && request.expected_status() != previous) {
      return Status(StatusCode::ABORTED, "the pass is " + std::string(status));
    }
    const bool refunded = previous != pb::ID_PASS_STATUS_IN_PROGRESS;
    if (request.require_refund() && !refunded) {
      return Status(StatusCode::FAILED_PRECONDITION, "no refund is due");
    }
    const std::string_view currency = pass_.Text(1);
    const std::optional<int64_t> refund_micros =
        refunded ? std::optional<int64_t>(pass_.Integer(2)) : std::nullopt;
    const std::string reference = NewReference(now_us);
    if (!account_.Run(refund_micros.value_or(0))) {
      return Status(StatusCode::FAILED_PRECONDITION, "the account is disabled");
    }
    const int64_t sequence = account_.Integer(0);
    account_.Reset();
    const char* reason = WordOf(request.reason());
    event_.Run(sequence, id, status, now_us, request_id,
               request_id ? std::optional<std::string_view>(digest) : std::nullopt, reference,
               currency, refund_micros, reason, pass_.Integer(5));
    Answer(previous, currency, refund_micros, reference, now_us, response);
    // Last, since it ends what was read of the pass.
    pass_.Reset();
    update_.Run(static_cast<int64_t>(refunded), now_us, reason, request.note(), sequence, id);
    return Status::OK;
  }

  Status Replay(const std::string& digest, pb::CancelResponse* response) {
    if (receipt_.Text(0) != digest) {
      return Status(StatusCode::INVALID_ARGUMENT, "request_id was used for something else");
    }
    const std::optional<int64_t> refund_micros =
        receipt_.IsNull(3) ? std::nullopt : std::optional<int64_t>(receipt_.Integer(3));
    Answer(StatusOf(receipt_.Text(1)), receipt_.Text(2), refund_micros,
           std::string(receipt_.Text(4)), receipt_.Integer(5), response);
    response->set_replayed(true);
    return Status::OK;
  }

  static void Answer(pb::IdPassStatus previous, std::string_view currency,
                     std::optional<int64_t> refund_micros, const std::string& reference,
                     int64_t cancel_time_us, pb::CancelResponse* response) {
    response->set_status(pb::ID_PASS_STATUS_CANCELLED);
    response->set_previous_status(previous);
    response->set_reference(reference);
    response->set_fee_refunded(refund_micros.has_value());
    if (refund_micros) {
      auto* refund = response->mutable_refund();
      refund->set_currency_code(std::string(currency));
      refund->set_units(*refund_micros / 1'000'000);
      refund->set_nanos(static_cast<int32_t>(*refund_micros % 1'000'000 * 1'000));
    }
    response->mutable_cancel_time()->set_seconds(cancel_time_us / 1'000'000);
    response->mutable_cancel_time()->set_nanos(
        static_cast<int32_t>(cancel_time_us % 1'000'000 * 1'000));
  }

  struct Resetting {
    Statement& statement;
    ~Resetting() { statement.Reset(); }
  };
  static Resetting Defer(Statement& statement) { return Resetting{statement}; }

  sqlite3* db_;
  Statement begin_{db_, "BEGIN IMMEDIATE"};
  Statement commit_{db_, "COMMIT"};
  Statement rollback_{db_, "ROLLBACK"};
  Statement pass_{db_,
                  "SELECT status, currency, fee_micros, expire_time_us, end_time_us, event_sequence"
                  " FROM passes WHERE account = 'demo' AND id = ?"};
  Statement receipt_{db_,
                     "SELECT request_digest, from_status, currency, refund_micros, reference,"
                     " event_time_us FROM events WHERE account = 'demo' AND request_id = ?"};
  Statement account_{db_,
                     "UPDATE accounts SET slots_in_use = slots_in_use - 1,"
                     " refunded_micros = refunded_micros + ?, last_sequence = last_sequence + 1"
                     " WHERE name = 'demo' AND disabled = 0 RETURNING last_sequence"};
  Statement update_{db_,
                    "UPDATE passes SET status = 'cancelled', fee_refunded = ?1,"
                    " update_time_us = ?2, end_time_us = ?2, cancel_reason = ?3, cancel_note = ?4,"
                    " caller = 'demo', event_sequence = ?5 WHERE account = 'demo' AND id = ?6"};
  Statement event_{
      db_,
      "INSERT INTO events (account, sequence, id_pass_id, from_status, to_status, event_time_us,"
      " caller, request_id, request_digest, reference, currency, refund_micros, reason,"
      " previous_sequence) VALUES ('demo', ?, ?, ?, 'cancelled', ?, 'demo', ?, ?, ?, ?, ?, ?, ?)"};
};

class Servicer final : public pb::IdPassService::CallbackService {
 public:
  explicit Servicer(sqlite3* db) : store_(db) {}

  grpc::ServerUnaryReactor* CancelIdPass(grpc::CallbackServerContext* context,
                                         const pb::CancelRequest* request,
                                         pb::CancelResponse* response) override {
    auto* reactor = context->DefaultReactor();
    const auto id = Uuid(request->id());
    if (!id) {
      reactor->Finish(Status(StatusCode::INVALID_ARGUMENT, "id is not a UUID"));
      return reactor;
    }
    const std::string digest = Digest(*id, *request);
    Status status;
    {
      std::lock_guard lock(mutex_);
      status = store_.Cancel(*id, digest, *request, response);
    }
    reactor->Finish(status);
    return reactor;
  }

 private:
  Store store_;
  std::mutex mutex_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: rival_server DATABASE CHECKPOINT_PAGES CACHE_KIB\n");
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  try {
    sqlite3* db = Open(argv[1], argv[2], argv[3]);
    Servicer servicer(db);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&servicer);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (server == nullptr) throw std::runtime_error("the server does not start");
    std::fprintf(stderr, "{\"event\": \"serving\", \"listen\": \"127.0.0.1:%d\"}\n", port);
    int number = 0;
    sigwait(&signals, &number);
    server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
