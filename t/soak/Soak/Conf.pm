package Soak::Conf;

# The configuration of a node: all nouns in one nginx.

use v5.36;
use Cwd qw(abs_path);
use File::Basename qw(dirname);

use constant {
    PORTS => 48,        # taken for a node
    WORKER => 1,        # first port of the workers: %PORT+1% to %PORT+12%
    REFUSED => 14,      # nobody listens there
    STREAM => 16,       # first port of the workers in stream{}
};

my $HERE = abs_path(dirname(__FILE__) . '/..');

# What CC::Server's configure takes.
sub pieces ($node) {
    return (main => main($node), http => http($node), stream => stream());
}

sub main ($node) {
    my $files = $node->{files} ? "worker_rlimit_nofile $node->{files};" : '';
    # queues small enough to be filled in a moment; the second log is the one that finds its disk full
    return <<~CONF;
        $files
        error_log %PREFIX%/logs/error.log info;
        error_log %PREFIX%/small/error.log info;
        cc_ipc_transport $node->{transport};
        cc_ipc_max_message 3m;
        cc_ipc_queue 6m;
        CONF
}

sub http ($node) {
    my $super = @{ $node->{super} // [] } ? "cc_super @{ $node->{super} };" : '';
    my ($refused, $worker) = (REFUSED, WORKER);
    return <<~CONF;
        access_log %PREFIX%/small/access.log;
        client_max_body_size 4m;
        lua_package_path "$HERE/?.lua;;";
        lua_max_running_timers 1024;
        lua_shared_dict ngxcc_dict 1m;

        cc_channel soak heartbeat=300ms;
        cc_node 127.0.0.1:%PORT%;
        cc_secret_file $node->{secret};
        $super
        cc_connect_timeout 1s;
        cc_send_timeout 1s;
        cc_read_timeout 1s;

        upstream keyed { cc_balancer workers key=\$arg_k fail_timeout=1s; keepalive 8; }
        upstream listed { cc_balancer \$peers; cc_balancer_tries 3; cc_balancer_timeouts 500ms 1s 1s; keepalive 4; }
        upstream chosen { cc_balancer; keepalive 4; }
        upstream below { cc_balancer clients channel=soak key=\$arg_k fail_timeout=1s; }

        init_by_lua_block { require "soak_pool" }
        init_worker_by_lua_block {
            require("soak").start("%PREFIX%", $node->{seed})
        }
        server {
            listen 127.0.0.1:%PORT%;
            listen 127.0.0.1:%PORT+$worker% per_worker;
            set \$peers "127.0.0.1:%PORT+$refused%, 127.0.0.1:%PORT%";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_connect_timeout 500ms;
            proxy_read_timeout 1s;
            proxy_next_upstream error timeout http_502 http_503;

            location = /id { return 200 "\$cc_node \$cc_worker_id \$pid"; }
            location = /work  { content_by_lua_block { require("soak").work() } }
            location = /long  { content_by_lua_block { require("soak").long() } }
            location = /flood { content_by_lua_block { require("soak").flood() } }
            location = /cc    { content_by_lua_block { require("soak_cluster").cc() } }
            location = /move  { content_by_lua_block { require("soak_cluster").move() } }

            location ~ ^/([^/]+)/invoke { cc_invoke; cc_action who /who; }
            location ~ ^/([^/]+)/hub { cc_hub; cc_action who /who; }
            location ~ ^/([^/]+)/cast { cc_cast \$arg_direction; }
            location = /who { internal; return 200 "\$cc_node \$cc_worker_id \$pid"; }

            location = /keyed { proxy_pass http://keyed/id; }
            location = /listed { proxy_pass http://listed/id; }
            location = /below { proxy_pass http://below/id; }
            location = /chosen {
                access_by_lua_block { require("soak_cluster").choose() }
                proxy_pass http://chosen/id;
            }

            location = /status { cc_status; }
            location = /ready { cc_status ready; }
        }
        CONF
}

sub stream () {
    my $first = STREAM;
    return <<~CONF;
        server {
            listen 127.0.0.1:%PORT+$first% per_worker;
            return "\$server_port \$pid";
        }
        CONF
}

1;
