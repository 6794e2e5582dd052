# Lock libraries of Ruby, unchanged, against the Redis dialect: take, contend, extend, release.
require 'redlock'

port = ARGV.fetch(0)
failed = 0
cases = {
  "redlock #{Redlock::VERSION}" => lambda do
    manager = Redlock::Client.new(["redis://127.0.0.1:#{port}"], retry_count: 0)
    lock = manager.lock('rb-a', 3000)
    raise 'not taken' unless lock
    raise 'taken twice' if manager.lock('rb-a', 3000)

    raise 'not extended' unless manager.lock('rb-a', 5000, extend: lock)
    raise 'not valid' unless manager.valid_lock?(lock)
    raise 'no time left' unless manager.get_remaining_ttl_for_lock(lock).to_i > 4000

    manager.unlock(lock)
    raise 'not released' if manager.locked?('rb-a')

    raise 'not run' unless manager.lock!('rb-a', 1000) { :run } == :run
    raise 'an extension took it' if manager.lock('rb-a', 5000, extend: lock, extend_only_if_locked: true)
  end
}
cases.each do |name, run|
  run.call
  puts "ok      #{name}"
rescue StandardError => e
  failed += 1
  puts "FAILED  #{name}: #{e.class}: #{e.message}"
end
puts "#{cases.size - failed} of #{cases.size}"
exit(failed.zero? ? 0 : 1)
