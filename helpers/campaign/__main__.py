from helpers.campaign.runner import main

main()
