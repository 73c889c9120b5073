package Test::Nginx::Socket::Lua;

# The original's name for tests of Lua code: the same, plus Lua to run first.

use Test::Nginx::Socket -Base;

if (my $code = $ENV{TEST_NGINX_INIT_BY_LUA}) {
    (my $quoted = $code) =~ s/([\\'"])/\\$1/g;
    Test::Nginx::Util::set_http_config_filter(sub {
        my ($http) = @_;
        return $http if $http =~ /init_by_lua_file/;
        $http .= "init_by_lua '$quoted';"
            unless $http =~ s/^(\s*init_by_lua_block\s*\{)/$1 $code /m;
        return $http;
    });
}

1;
