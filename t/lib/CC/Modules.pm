package CC::Modules;

# Which nginx binary, and which load_module lines in which order.

use v5.36;
use Cwd qw(abs_path);
use File::Basename qw(dirname);

my $ROOT = abs_path(dirname(__FILE__) . '/../../..');

sub binary () {
    state $path = do {
        my $name = $ENV{TEST_NGINX_BINARY} || 'nginx';
        my ($found) = $name =~ m{/} ? $name
            : grep { -x } map { "$_/$name" } split(/:/, $ENV{PATH}), '/usr/sbin';
        $found ? abs_path($found) : die "no nginx binary '$name' in PATH\n";
    };
    # absolute, because a binary upgrade runs argv[0] again without PATH
    return $path;
}

sub build_info () {
    state $info = do {
        my $nginx = binary();
        my $out = qx('$nginx' -V 2>&1);
        $? == 0 ? $out : die "$nginx -V failed: $out\n";
    };
    return $info;
}

# What TEST_NGINX_LOAD_MODULES lists; without the variable, what is there.
sub available () {
    if (defined $ENV{TEST_NGINX_LOAD_MODULES}) {
        return split ' ', $ENV{TEST_NGINX_LOAD_MODULES};
    }
    my $info = build_info();
    my ($dir) = $info =~ /--modules-path=(\S+)/;
    my @found;
    if (defined $dir) {
        @found = grep { -f } map { "$dir/$_.so" }
            qw(ndk_http_module ngx_http_lua_module ngx_stream_module);
        @found = grep { !/ndk|lua/ } @found if $info =~ /lua-nginx-module|ngx_lua-/;
    }
    push @found, grep { -f } "$ROOT/objs/ngx_http_cc_module.so";
    return @found;
}

# lua, stream, module: 0 leaves them out, 1 insists, undef takes what there
# is. order: 'module-first' puts ours before all others, 'module-last' after.
sub pick (%want) {
    my @list = available();
    my %class = (
        module => qr{ngx_http_cc_module[^/]*$},
        lua    => qr{(?:ndk_http_module|ngx_http_lua_module)[^/]*$},
        stream => qr{ngx_stream_module[^/]*$},
    );
    for my $kind (sort keys %class) {
        my $on = $want{$kind} // next;
        if (!$on) {
            @list = grep { $_ !~ $class{$kind} } @list;
        }
        elsif ($kind eq 'module' && !grep { $_ =~ $class{module} } @list) {
            die "ngx_http_cc_module.so is neither built nor listed in "
                . "TEST_NGINX_LOAD_MODULES\n";
        }
    }
    if (my $order = $want{order}) {
        my @ours   = grep { $_ =~ $class{module} } @list;
        my @others = grep { $_ !~ $class{module} } @list;
        @list = $order eq 'module-first' ? (@ours, @others)
              : $order eq 'module-last'  ? (@others, @ours)
              : die "order is 'module-first' or 'module-last', not '$order'\n";
    }
    return @list;
}

1;
