package CC::Block::Sections;

# Which sections there are. A name that is in neither list is an error:
# a misspelt check would otherwise pass for ever.

use v5.36;

my %KNOWN = map { $_ => 1 } qw(
    ONLY SKIP LAST
    main_config http_config config post_main_config server_name
    stream_config stream_server_config stream_server_config2
    stream_server_config3 stream_request stream_request2 stream_request3
    stream_response stream_response_like log_stream_response
    steam_listen_option steam_listen_option2 steam_listen_option3
    init post_setup_server_root user_files
    request request_eval pipelined_requests raw_request
    raw_request_middle_delay more_headers server_addr_for_client
    timeout abort shutdown wait ignore_response http09
    error_code error_code_like
    response_body response_body_eval response_body_like response_body_unlike
    response_body_filters response_body_json_sort write_resp_body_file charset
    response_headers response_headers_like
    raw_response_headers_like raw_response_headers_unlike
    error_log no_error_log grep_error_log grep_error_log_out
    shutdown_error_log no_shutdown_error_log access_log no_access_log
    error_log_file log_level
    must_die reload_fails suppress_stderr
    skip_nginx skip_nginx2 skip_openssl skip_eval todo todo_nginx
    tcp_listen tcp_reply tcp_reply_delay tcp_query tcp_query_len
    tcp_query_auto_timeout tcp_shutdown tcp_shutdown_delay tcp_no_close
    udp_listen udp_reply udp_reply_delay udp_query
);

# Without effect here, and without a check that could be missed.
my %HARMLESS = map { $_ => 1 } qw(
    no_check_leak no_http2 no_http3 no_mockeagain skip_slave curl
    stap stap_out stap_out_like stap_out_unlike quic_max_idle_timeout
    description
);

sub unknown (@names) { grep { !$KNOWN{$_} && !$HARMLESS{$_} } @names }

1;
